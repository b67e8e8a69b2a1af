"""Element-wise ops, and normalisations by constants: constants are computed, equals stay equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import Array, Facts, Mask, chain, digest
from irprune.facts.flow import dtype_of, identity
from irprune.folding.constants import evaluate
from irprune.ops.elementwise import Elementwise
from irprune.queries import Dim, constant_of

if TYPE_CHECKING:
    from irprune.facts.flow import Flow, Transfer

_BFLOAT16 = ir.DataType.BFLOAT16.numpy()


def aligned(flow: Flow, values: Sequence[ir.Value], output: ir.Value) -> list[Facts] | None:
    """Return facts about operands at the output's rank, each axis tracked in all or in none.

    An operand that is broadcast along a tracked axis keeps length 1 there. None where a length
    is not known.
    """
    dims = flow.dims(output)
    rank = len(dims)
    operands = [flow.of(value).raised(rank) for value in values]
    tracked = [k for k in range(rank) if any(facts.tracked(k) for facts in operands)]
    result = []
    for value, facts in zip(values, operands, strict=True):
        dims_here = flow.dims(value)
        own: list[Dim] = [*[1] * (rank - len(dims_here)), *dims_here]
        lengths: dict[int, int] = {}
        for k in tracked:
            length = own[k]
            if not isinstance(length, int) or length not in (1, dims[k]):
                return None
            lengths[k] = length
        result.append(facts.stretched(lengths))
    return result


def elementwise(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Each element of the output depends on one element of each operand."""
    values = [value for value in node.inputs if value is not None]
    operands = None if "axis" in node.attributes else aligned(flow, values, node.outputs[0])
    if operands is None:
        return [None]
    shape = np.broadcast_shapes(*(facts.shape for facts in operands))
    known = np.logical_and.reduce([np.broadcast_to(facts.known, shape) for facts in operands])
    const = np.zeros(shape, dtype_of(node.outputs[0]))
    if known.any():
        arrays = [np.broadcast_to(facts.const, shape) for facts in operands]
        const[known] = _evaluate(node, flow, arrays, known)
    known = _absorbed(node, operands, known, const)
    bare = Facts.make(known, const, np.zeros(shape, np.uint64))
    present = [value is not None for value in node.inputs]
    key = digest(*identity(node, bare, present))
    number = chain(key, *(facts.number for facts in operands))
    return [Facts.make(known, const, number)]


def _absorbed(node: ir.Node, operands: Sequence[Facts], known: Mask, const: Array) -> Mask:
    """Set constants that some operands alone decide; return where a constant is known."""
    if node.op_type == "Mul":
        for facts in operands:
            zero = np.broadcast_to(facts.known & (facts.const == 0), known.shape)
            const[zero] = 0
            known = known | zero
    if node.op_type == "Where":
        condition, *branches = operands
        for facts, side in zip(branches, (True, False), strict=True):
            decided = condition.known & (condition.const == side) & facts.known
            decided = np.broadcast_to(decided, known.shape)
            const[decided] = np.broadcast_to(facts.const, known.shape)[decided]
            known = known | decided
    return known


def _evaluate(node: ir.Node, flow: Flow, arrays: Sequence[Array], known: Mask) -> Array:
    """Run the node on the known constants with onnx's reference implementation."""
    feeds: dict[str, Array] = {}
    values = [value for value in node.inputs if value is not None]
    for value, array in zip(values, arrays, strict=True):
        vector = array[known]
        wide = vector.astype(np.float32) if vector.dtype == _BFLOAT16 else vector
        feeds[value.name or ""] = wide[0] if flow.dims(value) == [] else wide
    with np.errstate(all="ignore"):
        result = evaluate(node, feeds, {"": flow.opset})[0]
    return result.astype(dtype_of(node.outputs[0]))


def dropout(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """The identity at inference."""
    data, training = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    assert data is not None
    flag = np.zeros(1) if training is None else constant_of(training)
    return [None if flag is None or flag.any() else flow.of(data)]


def cast_like(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """The first operand in the dtype of the second."""
    data = node.inputs[0]
    assert data is not None
    facts = flow.of(data)
    with np.errstate(all="ignore"):
        const = facts.const.astype(dtype_of(node.outputs[0]))
    number = chain(digest(*identity(node, facts), const.dtype), facts.number)
    return [Facts.make(facts.known, const, number)]


def _per_channel(node: ir.Node, flow: Flow) -> tuple[Facts, list[Array]] | None:
    """Return facts about the data with only axis 1 tracked, and the parameters along it."""
    data, parameters = node.inputs[0], [constant_of(value) for value in node.inputs[1:]]
    assert data is not None
    channels = flow.dims(data)[1]
    known = [array for array in parameters if array is not None]
    if len(known) < len(parameters) or not isinstance(channels, int):
        return None
    rank = len(flow.dims(data))
    facts = flow.of(data).along(1, channels)
    return facts.reshaped([1, channels] + [1] * (rank - 2)), known


def _affine(
    node: ir.Node, facts: Facts, parameters: Sequence[Array], known: Mask, const: Array
) -> list[Facts | None]:
    """Return the output's facts from constants per channel; parameters tell channels apart."""
    columns = [Facts.of_array(array).along(0, len(array)).number for array in parameters]
    number = chain(digest(*identity(node, facts)), facts.number.ravel(), *columns)
    made = Facts.make(known, const.astype(facts.const.dtype), number)
    return [made.reshaped(facts.shape)]


def batch_normalization(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Y = scale (X - mean) / sqrt(var + epsilon) + B; where scale is 0, Y is B."""
    found = _per_channel(node, flow)
    training = len(node.outputs) > 1 or node.attributes.get_int("training_mode", 0) != 0
    if found is None or training:
        return [None]
    facts, parameters = found
    scale, bias, mean, var = (array.astype(np.float64) for array in parameters)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + epsilon)
        moved = factor * (facts.const.ravel().astype(np.float64) - mean) + bias
    known = facts.known.ravel() | (scale == 0)
    const = np.where(scale == 0, bias, moved)
    return _affine(node, facts, parameters, known, const)


def instance_normalization(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """A constant channel equals its mean, so it becomes B; so does one of scale 0."""
    found = _per_channel(node, flow)
    if found is None:
        return [None]
    facts, parameters = found
    scale, bias = parameters
    return _affine(node, facts, parameters, facts.known.ravel() | (scale == 0), bias)


TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(Elementwise.ops, elementwise),
    "CastLike": cast_like,
    "Dropout": dropout,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
}
