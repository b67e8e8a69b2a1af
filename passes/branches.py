"""Removal of what an emptied axis leaves behind: branches whose result became a constant.

Two steps around the slicing of tensors: `remove_branches` works on the graph of full width, where
positions still mean what they meant; `remove_parts` on the compacted one, where parts of a Split
or Concat have length 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.facts.bias import private
from irprune.facts.domain import Array
from irprune.facts.remains import Remains
from irprune.names import Names
from irprune.plan import Balanced, Plan, count, take
from irprune.proof.probe import HALF, promote
from irprune.queries import constant_of, dims_of
from irprune.roles import origins, succeed
from irprune.tidy import add_initializer, is_used, only_use, take_over

_IR_VERSION = 8

_PER_CHANNEL = ("BatchNormalization", "Conv", "ConvTranspose")
"""Ops that add input 2 to their result, one number per position of axis 1."""


def remove_branches(graph: ir.Graph, plan: Plan) -> frozenset[ir.Value]:
    """Put constants where branches that the plan empties were read; remove what nobody needs.

    Returns the values that have an axis without positions; those still in the graph are parts of
    a Concat or Split. Raises IrpruneError, with the graph untouched, where it cannot be without
    them.
    """
    remains = Remains(graph, plan)
    if remains.obstacles:
        name, axis = min(
            (name, axis)
            for name, masks in plan.axes.items()
            for axis, mask in masks.items()
            if not count(mask)
        )
        raise IrpruneError(
            f"the plan keeps no position of axis {axis} of {name}, but {remains.obstacles[0]}",
            mend="keep a channel, or empty the whole branch up to the Add where it ends",
        )
    if remains.gone:
        _Surgeon(graph, plan, remains).run()
    return remains.gone


def remove_parts(graph: ir.Graph) -> None:
    """Drop parts of length 0 from every Concat and Split; one of a single part goes itself."""
    names = Names(graph)
    for op in ("Concat", "Split"):  # the parts of a Split may lead to a Concat
        for node in list(graph):
            if node.op_type == op and node.domain in ("", "ai.onnx"):
                _drop_parts(graph, node, names)
        _sweep(graph)


def _drop_parts(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    concat = node.op_type == "Concat"
    parts = node.inputs if concat else node.outputs
    kept = [k for k, v in enumerate(parts) if v is None or 0 not in (dims_of(v) or [])]
    if not kept or len(kept) == len(parts):
        return
    if len(kept) == 1:
        _hand_on(node, names, *((kept[0], 0) if concat else (0, kept[0])))
    elif concat:
        _keep_inputs(node, kept)
    else:
        _keep_outputs(graph, node, kept, names)


def _sweep(graph: ir.Graph) -> None:
    """Remove the nodes that no output needs."""
    for node in reversed(list(graph)):
        if not is_used(node):
            graph.remove(node, safe=True)


def _hand_on(node: ir.Node, names: Names, source: int, output: int = 0) -> ir.Value:
    """Let an input of a node stand where one of its outputs stood; return what stands there.

    An Identity hands it on where the name of a graph output would be lost otherwise.
    """
    value, former = node.inputs[source], node.outputs[output]
    assert value is not None
    maker = value.producer()
    movable = maker is not None and maker.graph is node.graph and not value.is_graph_output()
    if movable or not former.is_graph_output():
        take_over(value, former)
        return value
    copy = ir.node("Identity", [value], name=names.node(f"{node.name}_identity"))
    node.append(copy)
    take_over(copy.outputs[0], former)
    return copy.outputs[0]


def _keep_inputs(node: ir.Node, kept: Sequence[int]) -> None:
    inputs = [node.inputs[k] for k in kept]
    for k, value in enumerate(inputs):
        node.replace_input_with(k, value)
    node.resize_inputs(len(inputs))


def _keep_outputs(graph: ir.Graph, node: ir.Node, kept: Sequence[int], names: Names) -> None:
    """Put a Split with fewer outputs in the place of one whose sizes are constants."""
    outputs = [node.outputs[k] for k in kept]
    axis = node.attributes.get_int("axis", 0)
    sizes = [(dims_of(value) or [])[axis] for value in outputs]
    new = ir.node("Split", node.inputs[:1], {"axis": axis}, num_outputs=len(kept))
    if "split" in node.attributes:
        new.attributes["split"] = ir.AttrInt64s("split", [int(str(n)) for n in sizes])
    else:
        array = np.array(sizes, np.int64)
        sizes_value = add_initializer(graph, names.value(f"{node.name}_sizes"), array)
        new.resize_inputs(2)
        new.replace_input_with(1, sizes_value)
    graph.insert_before(node, new)
    for value, former in zip(new.outputs, outputs, strict=True):
        value.name, former.name = former.name, None
        value.type, value.shape = former.type, former.shape
        former.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = node.name


class _Surgeon:
    """Gives living nodes constants of their own in place of emptied branches."""

    def __init__(self, graph: ir.Graph, plan: Plan, remains: Remains) -> None:
        self._graph = graph
        self._plan = plan
        self._remains = remains
        self._names = Names(graph)
        self._numbers = _numbers(graph, plan, remains)

    def run(self) -> None:
        """Operate on every element-wise node that reads what became a constant."""
        lost: dict[ir.Node, list[int]] = {}
        for cut in self._remains.cuts:
            if cut.kind != "part":
                lost.setdefault(cut.node, []).append(cut.index)
        for node, indices in lost.items():
            self._replace(node, {k: self._constant(node.inputs[k]) for k in indices})
        _sweep(self._graph)
        for node in lost:  # only now it shows who else reads what they add to
            if node.graph is self._graph:
                self._fold(node)

    def _replace(self, node: ir.Node, constants: dict[int, Array]) -> None:
        """Give a node constants; it goes where it adds zero only."""
        others = [k for k in range(len(node.inputs)) if k not in constants]
        if _adds_to(node, others) and not any(array.any() for array in constants.values()):
            _hand_on(node, self._names, others[0])
            return
        for index, array in constants.items():
            node.replace_input_with(index, self._operand(node, array, node.inputs[index]))
        if node.op_type == "Sum":
            zero = [index for index, array in constants.items() if not array.any()]
            _keep_inputs(node, [k for k in range(len(node.inputs)) if k not in zero])

    def _fold(self, node: ir.Node) -> None:
        """Let a bias before a node add its constants as well, where nothing else reads the sum."""
        arrays = [constant_of(value) for value in node.inputs]
        others = [k for k, array in enumerate(arrays) if array is None]
        if not _adds_to(node, others):
            return
        index, value = others[0], node.inputs[others[0]]
        maker = None if value is None else value.producer()
        if value is None or maker is None or maker.graph is not self._graph or not only_use(value):
            return
        place = _bias_of(maker)
        bias = None if place is None else maker.inputs[place]
        numbers = constant_of(bias) if private(bias) else None
        if place is None or bias is None or numbers is None:
            return
        added = [array.astype(np.float64) for array in arrays if array is not None]
        total: Array = sum(added, np.zeros(()))
        if node.op_type == "Sub":
            total = -total
        if maker.op_type in _PER_CHANNEL:
            if total.size > 1 and (total.ndim < 2 or total.shape[1] != total.size):
                return
            total = total.ravel()
        total = self._kept(numbers, bias).astype(np.float64) + total
        if not _holds(bias, total):
            return
        name = self._names.value(f"{bias.name}_folded")
        sources = origins([bias, *(v for k, v in enumerate(node.inputs) if k != index)])
        maker.replace_input_with(place, self._initializer(name, total, bias.dtype, sources))
        name, former = node.outputs[0].name or "", node.outputs[0]
        _hand_on(node, self._names, index)
        if former.name == name:  # a sum of another meaning than before: it takes that one's name
            value.name, former.name = name, None
        self._graph.remove(node, safe=True)

    def _constant(self, value: ir.Value | None) -> Array:
        """Return the numbers of a lost value, one number for axes along which they are alike."""
        assert value is not None
        return self._kept(self._numbers[value.name or ""], value)

    def _kept(self, array: Array, value: ir.Value) -> Array:
        """Return what the plan keeps of an array that stands along the axes of a value."""
        masks = self._plan.axes.get(value.name or "", {})
        shape = list(array.shape)
        for axis, mask in masks.items():
            if isinstance(mask, Balanced) and shape[axis] == len(mask):
                for k, length in zip(mask.per, mask.rows.shape, strict=False):
                    shape[k] = length
        array = np.broadcast_to(array, shape)
        return take(array, {k: mask for k, mask in masks.items() if shape[k] == len(mask)})

    def _operand(self, node: ir.Node, array: Array, former: ir.Value | None) -> ir.Value:
        """Return a value with these numbers, of the type of the one that a node read."""
        assert former is not None and former.dtype is not None
        name = self._names.value(f"{node.name}_constant")
        sources = origins([former], without=self._remains.gone)
        if _holds(former, array):
            return self._initializer(name, array, former.dtype, sources)
        wide = self._initializer(name, array, ir.DataType.from_numpy(array.dtype), sources)
        cast = ir.node("Cast", [wide], {"to": former.dtype}, name=self._names.node(f"{name}_cast"))
        value = cast.outputs[0]
        value.name = self._names.value(f"{name}_cast")
        value.type, value.shape = former.type, wide.shape
        node.prepend(cast)
        return value

    def _initializer(
        self, name: str, array: Array, dtype: ir.DataType | None, sources: Iterable[ir.Value]
    ) -> ir.Value:
        assert dtype is not None
        tensor = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)
        made = add_initializer(self._graph, name, tensor)
        succeed(made, sources)
        return made


def _numbers(graph: ir.Graph, plan: Plan, remains: Remains) -> dict[str, Array]:
    """Return the constants that remain by name; those of half precision in float32.

    They are computed in float32 from the start: rounding each step would add up to more than the
    proof, which widens such graphs, allows.
    """
    if any(value.dtype in HALF for value in remains.constants):
        wide = ir.Model(graph.clone(), ir_version=_IR_VERSION)
        promote(wide)
        remains = Remains(wide.graph, plan)
    return {value.name or "": facts.const for value, facts in remains.constants.items()}


def _holds(value: ir.Value, array: Array) -> bool:
    """Return whether the type of a value is float32 or wider, or holds these very numbers."""
    assert value.dtype is not None
    if value.dtype not in HALF:
        return True
    rounded = array.astype(value.dtype.numpy()).astype(array.dtype)
    return bool((rounded == array).all())


def _adds_to(node: ir.Node, others: Sequence[int]) -> bool:
    """Return whether a node adds its inputs but `others` to the one of `others`."""
    adds = node.op_type in ("Add", "Sum") or (node.op_type == "Sub" and 0 in others)
    return adds and len(others) == 1


def _bias_of(node: ir.Node) -> int | None:
    """Return the input of a node that is added to its result as it is; None if there is none."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _PER_CHANNEL or (
        node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) == 1
    ):
        return 2 if len(node.inputs) > 2 else None
    if node.op_type == "Add":
        known = [k for k, value in enumerate(node.inputs) if private(value)]
        return known[0] if len(known) == 1 else None
    return None
