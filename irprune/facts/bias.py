"""Adding constants to what a convolution or matrix product computes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.facts.linear import Linear, is_constant
from irprune.names import Names
from irprune.queries import constant_of, dims_of
from irprune.roles import inherit, origins, succeed
from irprune.tidy import add_initializer, only_use

Sums = npt.NDArray[np.float64]


def private(value: ir.Value | None) -> bool:
    """Return whether a value is an initializer that one node alone reads."""
    return value is not None and is_constant(value) and only_use(value)


def store(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    """Replace the numbers of an initializer; the name and dtype stay, the shape may change."""
    assert value.const_value is not None
    dtype = value.const_value.dtype
    value.const_value = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=value.name)
    value.shape = ir.Shape(array.shape)


def takes_bias(linear: Linear) -> bool:
    """Return whether `Biases.add` can add a constant per output channel to the node's result."""
    node = linear.node
    if linear.data != 0 or linear.output_axis is None:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type == "MatMul" or bias is None:
        return True
    array = constant_of(bias)
    if array is None or node.attributes.get_float("beta", 1.0) == 0:
        return False
    return array.size in (1, _channels(linear)) and (array.ndim < 2 or array.shape[0] == 1)


def _channels(linear: Linear) -> int:
    dims = dims_of(linear.node.outputs[0])
    assert dims is not None and linear.output_axis is not None
    length = dims[linear.output_axis]
    assert isinstance(length, int)
    return length


class Biases:
    """Adds constants to the results of nodes of a graph, in place.

    What holds such a constant is a parameter where the node's weight is one.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._names = Names(graph)

    def add(self, linear: Linear, sums: Sums) -> None:
        """Add ``sums``, one number per output channel, to the node's result."""
        node = linear.node
        if node.op_type == "MatMul":
            self._add_after(linear, sums)
            return
        sums = sums / node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else sums
        self._replace(node, 2, linear.weight, sums)

    def _replace(self, node: ir.Node, index: int, weight: ir.Value, sums: Sums) -> None:
        """Feed an input with its old numbers plus ``sums``, which a weight went into."""
        old = node.inputs[index] if len(node.inputs) > index else None
        array = constant_of(old)
        numbers = sums if array is None else array.astype(np.float64) + sums
        if old is not None and private(old):
            store(old, numbers)
            inherit(old, [weight])
            return
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        node.replace_input_with(index, self._initializer(node, numbers, [old, weight]))

    def _add_after(self, linear: Linear, sums: Sums) -> None:
        """Add to a MatMul's result: in the Add that follows it, or in a new one."""
        node = linear.node
        result = node.outputs[0]
        name = result.name
        found = _following_constant(result, len(sums))
        if found is not None:
            add, index = found
            self._replace(add, index, linear.weight, sums)
        else:
            operands = [result, self._initializer(node, sums, [linear.weight])]
            add = ir.node("Add", operands, name=self._names.node(f"{node.name}_add"))
            self.graph.insert_after(node, add)
            total = add.outputs[0]
            total.type, total.shape = result.type, result.shape
            result.replace_all_uses_with(total, replace_graph_outputs=True)
            add.replace_input_with(0, result)
            total.name = name
        self.rename(result, f"{name}_product")

    def rename(self, value: ir.Value, stem: str) -> None:
        """Give an activation that no longer holds what it held another name."""
        value.name = self._names.value(stem)

    def _initializer(
        self, node: ir.Node, numbers: Sums, sources: Iterable[ir.Value | None]
    ) -> ir.Value:
        """Return a new initializer in the dtype of the node's result."""
        dtype = node.outputs[0].dtype
        assert dtype is not None
        name = self._names.value(f"{node.name}_bias")
        tensor = ir.Tensor(numbers.astype(dtype.numpy()), dtype=dtype, name=name)
        made = add_initializer(self.graph, name, tensor)
        succeed(made, origins(sources))
        return made


def _following_constant(value: ir.Value, channels: int) -> tuple[ir.Node, int] | None:
    """Return the only consumer, an Add of a constant per channel, and that constant's input."""
    use = next(iter(value.uses()), None)
    if use is None or not only_use(value) or use.node.op_type != "Add":
        return None
    node, index = use.node, 1 - use.idx
    array, rank = constant_of(node.inputs[index]), len(value.shape or ())
    if array is None or array.ndim == 0 or array.ndim > rank or "axis" in node.attributes:
        return None
    fits = array.shape[-1] == array.size == channels
    return (node, index) if fits else None
