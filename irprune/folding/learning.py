"""What can be known of tensors without running the graph: contents, and shapes that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.shape_inference import InferenceError, infer_node_outputs

from irprune.errors import IrpruneError
from irprune.folding.constants import EVALUATED, GROWING, Array, evaluate
from irprune.folding.dims import FOLLOWED, followed_dims
from irprune.folding.values import (
    Element,
    Length,
    Partial,
    Unknown,
    dim_elements,
    partial_of,
    partial_outputs,
)
from irprune.queries import describe
from irprune.shapes import anonymous

MOST_ELEMENTS = 1 << 10
"""Constants up to this many elements are folded."""

_MOST_FOLLOWED = 1 << 4
"""Elements of computed tensors up to this many are followed one by one."""

_SHAPE_LIKE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


class Knowledge:
    """Contents of small tensors, whole or in part, learnt in one walk over a graph.

    Shapes that follow from them are set on the values on the way, so that later nodes profit.

    Args:
        model: the model, its shapes inferred, its nodes and values named.
        parameters: floating-point weights, from which nothing else is computed.
    """

    def __init__(self, model: ir.Model, parameters: frozenset[ir.Value]) -> None:
        self.parameters = parameters
        self.opsets = dict(model.opset_imports)
        self.ir_version = model.ir_version or onnx.IR_VERSION
        self.partials: dict[ir.Value, Partial] = {}
        self.computed: dict[ir.Value, Array] = {}
        self.failures: dict[str, str] = {}
        """Nodes of known inputs that the reference implementation could not run, and why."""
        self._reshaped: set[ir.Value] = set()
        for node in model.graph:
            if not node.domain and not _has_body(node):
                self._learn(node)

    # What is known

    def partial(self, value: ir.Value) -> Partial | None:
        """Return what is known of an integer or boolean tensor, None for nothing."""
        found = self.partials.get(value)
        if found is not None or value.dtype not in _SHAPE_LIKE:
            return found
        if value.is_initializer():
            array = _small(value)
            if array is None:
                return None
            return self.partials.setdefault(value, array.astype(np.object_))
        count, rank = size_of(value), 0 if value.shape is None else len(value.shape)
        if count is None or rank > 1 or not 0 < count <= _MOST_FOLLOWED:
            return None
        return partial_of([Element(value, k) for k in range(count)], [count] * rank)

    def constant(self, value: ir.Value) -> Array | None:
        """Return the contents of a small tensor that is wholly known, None otherwise."""
        if value in self.computed:
            return self.computed[value]
        if value.is_initializer():
            return _small(value)
        partial = self.partials.get(value)
        if partial is None or not all(isinstance(e, int) for e in partial.ravel()):
            return None
        assert value.dtype is not None
        return partial.astype(value.dtype.numpy())

    def reshape_target(self, node: ir.Node) -> list[int] | None:
        """Return the target of a Reshape as a constant, where its data leave no doubt."""
        data, target = node.inputs[0], node.inputs[1]
        asked = None if target is None else self.partial(target)
        if data is None or asked is None:
            return None
        try:
            dims: list[int | Length] = dim_elements(data)
        except Unknown:
            dims = []
        allowzero = bool(node.attributes.get_int("allowzero", 0))
        return settled_target(dims, asked.ravel().tolist(), allowzero)

    # Contents

    def _learn(self, node: ir.Node) -> None:
        given = [v for v in node.inputs if v is not None]
        learnt = any(v in self._reshaped or self._computed(v) for v in given)
        if learnt or node.op_type in FOLLOWED:
            self._refine(node)
        if node.outputs[0].dtype in _SHAPE_LIKE:
            found = partial_outputs(node, self.partial)
            if found is not None:
                for value, partial in zip(node.outputs, found, strict=False):
                    self._store(value, partial)
                return
        if node.op_type in EVALUATED and all(
            self._computed(v) or v.is_initializer() for v in given
        ):
            self._evaluate(node, given)

    def _computed(self, value: ir.Value) -> bool:
        """Return whether the contents of a node's output were learnt."""
        return value in self.computed or (value in self.partials and not value.is_initializer())

    def _store(self, value: ir.Value, partial: Partial) -> None:
        """Keep what is known of an output; an unknown element is one of the tensor itself."""
        bound = 2**31 if value.dtype == ir.DataType.INT32 else 2**63
        own = [Element(value, k) for k in range(partial.size)]
        elements = [
            own[k] if e is None or (isinstance(e, int) and not -bound <= e < bound) else e
            for k, e in enumerate(partial.ravel())
        ]
        known = [e != o for e, o in zip(elements, own, strict=True)]
        if all(known) or (any(known) and partial.ndim <= 1):
            self.partials[value] = partial_of(elements, partial.shape)

    def _evaluate(self, node: ir.Node, given: Sequence[ir.Value]) -> None:
        """Compute a node whose inputs are small known constants, unless one is a parameter."""
        arrays = {v.name or "": self.constant(v) for v in given}
        known = {name: array for name, array in arrays.items() if array is not None}
        if not known or len(known) < len(arrays) or not self._may_evaluate(node, given):
            return
        outputs = [v for v in node.outputs if v.name]
        try:
            results = evaluate(node, known, self.opsets)
        except Exception as error:  # whatever the reference implementation does not cover
            self.failures[describe(node)] = f"{type(error).__name__}: {error}"
            return
        for value, array in zip(outputs, results, strict=True):
            if not _agrees(value, array):
                self.failures[describe(node)] = f"got {array.dtype}{list(array.shape)}"
            elif array.size <= MOST_ELEMENTS:
                self.computed[value] = array

    def _may_evaluate(self, node: ir.Node, given: Sequence[ir.Value]) -> bool:
        """Return whether nothing big is made and no parameter lost.

        A parameter of one element may meet numbers that were computed: it is a factor of shapes.
        """
        parameters = [v for v in given if v in self.parameters]
        if any(size_of(v) != 1 for v in parameters):
            return False
        if parameters and all(v.is_initializer() for v in given):
            return False
        sizes = [size_of(v) for v in node.outputs if v.name]
        if None in sizes:
            return node.op_type not in GROWING
        return all(size is not None and size <= MOST_ELEMENTS for size in sizes)

    # Shapes

    def _refine(self, node: ir.Node) -> None:
        """Infer the shapes of a node's outputs again, from what was learnt about its inputs."""
        stale = [v for v in node.outputs if v.name and size_of(v) is None]
        types = {v.name or "": _type_proto(v) for v in node.inputs if v is not None}
        known = {name: proto for name, proto in types.items() if proto is not None}
        if not stale or len(known) < len(types):
            return
        try:
            inferred = self._infer(node, known)
        except onnx.defs.SchemaError:
            return
        except InferenceError as error:
            raise IrpruneError(
                f"shape inference failed: {error}",
                node=describe(node),
                mend="the model's shapes disagree; check it with onnx.checker",
            ) from error
        for value in stale:
            proto = inferred.get(value.name or "")
            if proto is not None:
                value.type = value.type or ir.serde.deserialize_type_proto_for_type(proto)
                self._narrow(value, ir.serde.deserialize_type_proto_for_shape(proto))
        dims = followed_dims(node, self.partial)
        if dims is not None:
            self._narrow(node.outputs[0], ir.Shape(dims))

    def _infer(self, node: ir.Node, types: dict[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
        """Return the types of a node's outputs, by name, as onnx infers them from its inputs."""
        proto = ir.serde.serialize_node(node)
        arrays = {v.name or "": self.constant(v) for v in node.inputs if v is not None}
        if node.op_type == "Reshape" and (target := self.reshape_target(node)) is not None:
            arrays[proto.input[1]] = np.array(target, np.int64)
            for attribute in proto.attribute:
                attribute.i = 0  # allowzero: in a settled target, 0 means "copied"
        contents = {
            name: onnx.numpy_helper.from_array(array, name)
            for name, array in arrays.items()
            if array is not None
        }
        return infer_node_outputs(
            onnx.defs.get_schema(node.op_type, self.opsets[""], ""),
            proto,
            types,
            contents,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in self.opsets.items()],
            ir_version=self.ir_version,
        )

    def _narrow(self, value: ir.Value, shape: ir.Shape | None) -> None:
        """Take over what a shape adds to that of a value; graph outputs keep what they state."""
        old = value.shape
        if value.is_graph_output():
            shape = anonymous(shape) if old is None else None
        if shape is None or (old is not None and len(old) != len(shape)):
            return
        before = [None] * len(shape) if old is None else [_dim(d) for d in old.dims]
        after = [
            was if isinstance(was, int) or _dim(now) is None else _dim(now)
            for was, now in zip(before, shape.dims, strict=True)
        ]
        if old is None or after != before:
            value.shape = ir.Shape(after)
            self._reshaped.add(value)


def settled_target(
    dims: Sequence[int | Length], asked: Sequence[Any], allowzero: bool
) -> list[int] | None:
    """Return the target of a Reshape as numbers, None where more than one length is open.

    A length that the data have at the same place becomes 0 (copied), the only other one -1; and
    a -1 that stands for a dynamic axis at its place becomes 0 too: so names of dimensions survive.

    Args:
        dims: the dimensions of the data, empty where unknown.
        asked: the elements of the target.
        allowzero: a 0 in the target asks for an axis of length 0.
    """
    if allowzero and 0 in asked:
        return None
    target = [
        e if isinstance(e, int) else 0 if k < len(dims) and dims[k] == e else None
        for k, e in enumerate(asked)
    ]
    if None in target and -1 in target:
        k = target.index(-1)
        target[k] = _rest(dims, asked, k)
    if (open_ := target.count(None) + target.count(-1)) > 1:
        return None
    numbers = [-1 if n is None else n for n in target]
    if open_:
        k = numbers.index(-1)
        copied = [dims[j] if n == 0 and j < len(dims) else n for j, n in enumerate(numbers)]
        rest = _product(copied, k)
        dynamic = k < len(dims) and isinstance(dims[k], Length)
        if dynamic and rest[0] and rest == _product(dims, k):
            numbers[k] = 0
    return numbers


def _rest(dims: Sequence[int | Length], asked: Sequence[Any], k: int) -> int:
    """Return the length that a -1 at place ``k`` stands for; -1 where it is not a number."""
    copied = [dims[j] if e == 0 and j < len(dims) else e for j, e in enumerate(asked)]
    (whole, lengths), (part, named) = _product(dims, len(dims)), _product(copied, k)
    return whole // part if part and lengths == named and not whole % part else -1


def _product(elements: Sequence[Any], without: int) -> tuple[int, Counter[Any]]:
    """Return the product of the numbers and the count of each length, one element left out."""
    rest = [e for k, e in enumerate(elements) if k != without]
    return prod(e for e in rest if isinstance(e, int)), Counter(
        e for e in rest if not isinstance(e, int)
    )


def size_of(value: ir.Value) -> int | None:
    """Return the number of elements of a tensor of static shape, None otherwise."""
    dims = [None] if value.shape is None else [_dim(d) for d in value.shape.dims]
    sizes = [d for d in dims if isinstance(d, int)]
    return prod(sizes) if len(sizes) == len(dims) else None


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _small(value: ir.Value) -> Array | None:
    """Return the numbers of a small initializer."""
    tensor = value.const_value
    if tensor is None or tensor.size > MOST_ELEMENTS or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.numpy()


def _has_body(node: ir.Node) -> bool:
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in bodies for attribute in node.attributes.values())


def _agrees(value: ir.Value, array: Array) -> bool:
    """Return whether an array has the dtype of a value, and its shape as far as that is known."""
    if value.dtype is None or value.dtype.numpy() != array.dtype:
        return False
    dims = array.shape if value.shape is None else [_dim(d) for d in value.shape.dims]
    return len(dims) == array.ndim and all(
        not isinstance(d, int) or d == n for d, n in zip(dims, array.shape, strict=True)
    )


def _type_proto(value: ir.Value) -> onnx.TypeProto | None:
    """Return the type of a tensor for onnx, None where it is unknown or no tensor."""
    if not isinstance(value.type, ir.TensorType):
        return None
    dims = None if value.shape is None else [_dim(d) for d in value.shape.dims]
    return onnx.helper.make_tensor_type_proto(int(value.type.dtype), dims)
