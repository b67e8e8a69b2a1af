"""Mistakes to make in a correctly compacted graph, by name.

Each takes the compacted graph, its base and the plan, breaks the graph in place where it can, and
returns whether it found a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from irprune.plan import Plan, take

Mutation = Callable[[ir.Graph, ir.Graph, Plan], bool]

MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__] = function
    return function


# What mutations use


def nodes(graph: ir.Graph, *kinds: str) -> list[ir.Node]:
    """Nodes of these op types, the deepest in the middle of the list first."""
    found = [node for node in graph if node.op_type in kinds]
    return found[len(found) // 2 :] + found[: len(found) // 2]


def weight(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node if it is an initializer."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.is_initializer() else None


def numbers(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def store(value: ir.Value, array: np.ndarray) -> bool:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    return True


def parameters(graph: ir.Graph, index: int, *kinds: str) -> Iterator[ir.Value]:
    """Initializers at one input of the nodes of these types."""
    for node in nodes(graph, *kinds):
        value = weight(node, index)
        if value is not None:
            yield value


def differing(value: ir.Value, axis: int = 0) -> tuple[int, int] | None:
    """Two positions of an axis with different numbers; the first two where all are alike."""
    rows = np.moveaxis(numbers(value), axis, 0)
    if len(rows) < 2:
        return None
    return 0, next((k for k in range(1, len(rows)) if (rows[k] != rows[0]).any()), 1)


def swapped(array: np.ndarray, pair: tuple[int, int], axis: int = 0) -> np.ndarray:
    order = np.arange(array.shape[axis])
    order[list(pair)] = pair[::-1]
    return np.take(array, order, axis)


def integers(node: ir.Node, name: str, index: int) -> list[int] | None:
    """An attribute or a constant input."""
    if name in node.attributes:
        return list(node.attributes[name].as_ints())
    value = weight(node, index)
    return None if value is None else numbers(value).tolist()


def set_integers(node: ir.Node, name: str, index: int, new: Iterable[int]) -> bool:
    if name in node.attributes:
        node.attributes[name] = ir.AttrInt64s(name, list(new))
        return True
    value = node.inputs[index]
    assert value is not None
    return store(value, np.array(list(new), np.int64))


# Wrong weights


@mutation
def a_slice_of_the_wrong_channels(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 1, "Conv", "Gemm", "MatMul"):
        for axis, kept in plan.axes.get(value.name or "", {}).items():
            shifted = np.roll(kept, 1)
            masks = plan.axes[value.name or ""] | {axis: shifted}
            if not np.array_equal(shifted, kept):
                whole = numbers(base.initializers[value.name or ""])
                return store(value, take(whole, masks))
    return False


@mutation
def two_filters_swapped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 1, "Conv"):
        if pair := differing(value):
            return store(value, swapped(numbers(value), pair))
    return False


@mutation
def two_input_channels_swapped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 1, "Conv", "Gemm"):
        if pair := differing(value, 1):
            return store(value, swapped(numbers(value), pair, 1))
    return False


@mutation
def two_rows_of_a_matrix_swapped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 1, "MatMul"):
        if pair := differing(value):
            return store(value, swapped(numbers(value), pair))
    return False


@mutation
def a_bias_of_other_channels(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 2, "Conv", "Gemm"):
        if pair := differing(value):
            return store(value, swapped(numbers(value), pair))
    return False


@mutation
def a_bias_dropped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Conv", "Gemm"):
        value = weight(node, 2)
        if value is not None and numbers(value).any():
            node.replace_input_with(2, None)
            return True
    return False


@mutation
def a_mean_of_other_channels(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 3, "BatchNormalization"):
        if pair := differing(value):
            return store(value, swapped(numbers(value), pair))
    return False


@mutation
def a_variance_of_other_channels(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for value in parameters(graph, 4, "BatchNormalization"):
        if pair := differing(value):
            return store(value, swapped(numbers(value), pair))
    return False


# Wrong constants of shapes and positions


@mutation
def a_stale_shape(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    old = {node.name: node for node in base}
    for node in nodes(graph, "Reshape"):
        before = old[node.name].inputs[1]
        if before is not None and weight(node, 1) is not None:
            shape = integers(node, "", 1)
            stale = numbers(before).tolist()
            if shape != stale:
                return set_integers(node, "", 1, stale)
    return False


@mutation
def a_shape_with_two_lengths_swapped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Reshape"):
        shape = integers(node, "", 1) if weight(node, 1) is not None else None
        for k in range(len(shape or ()) - 1):
            assert shape is not None
            if shape[k] != shape[k + 1] and min(shape[k : k + 2]) > 1:
                shape[k : k + 2] = shape[k + 1], shape[k]
                return set_integers(node, "", 1, shape)
    return False


@mutation
def a_split_off_by_one(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Split"):
        sizes = integers(node, "split", 1)
        if sizes and sizes[-1] > 1:
            return set_integers(node, "split", 1, [sizes[0] + 1, *sizes[1:-1], sizes[-1] - 1])
    return False


@mutation
def a_split_in_another_order(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Split"):
        first, last = node.outputs[0], node.outputs[-1]
        readers = [(use.node, use.idx) for use in first.uses()]
        if first.is_graph_output() or last.is_graph_output():
            continue
        last.replace_all_uses_with(first)
        for reader, index in readers:
            reader.replace_input_with(index, last)
        return True
    return False


@mutation
def slice_bounds_off_by_one(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Slice"):
        starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
        if starts and ends and 0 < starts[0] < ends[0] < 2**31 - 1:
            set_integers(node, "starts", 1, [starts[0] - 1, *starts[1:]])
            return set_integers(node, "ends", 2, [ends[0] - 1, *ends[1:]])
    return False


@mutation
def a_gather_of_the_wrong_channels(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Gather"):
        value = weight(node, 1)
        if value is not None and numbers(value).size > 1:
            return store(value, np.roll(numbers(value), 1))
    return False


@mutation
def padding_on_the_wrong_side(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    return any(shift_pads(node, 0) for node in nodes(graph, "Pad"))


# Wrong attributes


@mutation
def a_window_on_the_wrong_side(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    return any(shift_pads(node, 1) for node in nodes(graph, "Conv", "MaxPool", "AveragePool"))


def shift_pads(node: ir.Node, index: int) -> bool:
    pads = integers(node, "pads", 1) if index == 0 or "pads" in node.attributes else None
    half = len(pads or ()) // 2
    for k in range(half):
        assert pads is not None
        if pads[k] > 0:
            pads[k] -= 1
            pads[k + half] += 1
            return set_integers(node, "pads", 1, pads)
    return False


@mutation
def a_wrong_group_count(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Conv", "ConvTranspose"):
        if node.attributes.get_int("group", 1) > 1:
            node.attributes["group"] = ir.AttrInt64("group", 1)
            return True
    return False


@mutation
def a_wrong_epsilon(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "BatchNormalization", "InstanceNormalization"):
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon * 10)
        return True
    return False


@mutation
def a_wrong_slope(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "LeakyRelu", "Elu"):
        alpha = node.attributes.get_float("alpha", 0.01)
        node.attributes["alpha"] = ir.AttrFloat32("alpha", alpha * 1.01)
        return True
    return False


@mutation
def a_wrong_permutation(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Transpose"):
        perm = list(node.attributes["perm"].as_ints())
        perm[-2:] = perm[:-3:-1]
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
        return True
    return False


@mutation
def a_matrix_transposed(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Gemm"):
        value = node.inputs[1]
        if value is not None and value.shape is not None and value.shape[0] == value.shape[1]:
            flag = 1 - node.attributes.get_int("transB", 0)
            node.attributes["transB"] = ir.AttrInt64("transB", flag)
            return True
    return False


@mutation
def another_axis(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Softmax", "Concat", "Split"):
        node.attributes["axis"] = ir.AttrInt64("axis", node.attributes.get_int("axis", 1) - 1)
        return True
    return False


# Wrong wiring


@mutation
def concatenated_in_another_order(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Concat"):
        if len(node.inputs) > 1 and node.outputs[0].dtype == ir.DataType.FLOAT:
            first, last = node.inputs[0], node.inputs[-1]
            node.replace_input_with(0, last)
            node.replace_input_with(len(node.inputs) - 1, first)
            return first is not last
    return False


@mutation
def an_activation_function_dropped(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Relu", "LeakyRelu", "Clip", "HardSwish"):
        if node.inputs[0] is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            graph.remove(node)
            return True
    return False


@mutation
def another_activation_function(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Relu", "LeakyRelu"):
        node.op_type = "Sigmoid"
        node.attributes.clear()
        return True
    return False


@mutation
def a_shortcut_from_elsewhere(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Add"):
        for index, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            earlier = None if producer is None else producer.inputs[0]
            if value is None or earlier is None or earlier.producer() is None:
                continue
            if earlier.shape == value.shape and earlier not in node.inputs:
                node.replace_input_with(index, earlier)
                return True
    return False


@mutation
def a_shortcut_left_out(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "Add"):
        branch = node.inputs[0]
        if branch is not None and branch.producer() is not None:
            node.outputs[0].replace_all_uses_with(branch, replace_graph_outputs=True)
            graph.remove(node)
            return True
    return False


@mutation
def maximum_for_average(graph: ir.Graph, base: ir.Graph, plan: Plan) -> bool:
    for node in nodes(graph, "GlobalAveragePool"):
        node.op_type = "GlobalMaxPool"
        return True
    return False
