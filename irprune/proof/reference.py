"""The masked reference: the base graph in which every contraction ignores the dropped channels.

Inexact ops take their statistics over the kept channels: these are gathered before the op, and its
result is scattered back.

It is made from the base and the plan alone, so it cannot repeat a mistake of the compaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.names import Names
from irprune.ops import bodies, rule_for
from irprune.ops.rule import Contraction
from irprune.plan import Balanced, Kept, Mask, Plan, count, raised, take
from irprune.proof.gathered import Gatherer
from irprune.queries import Dim, describe, dims_of

_WHERE_SINCE = 9
_OTHER = "apply the plan to the graph that it was made on"


def masked_reference(base: ir.Model, plan: Plan) -> ir.Model:
    """Return a copy of `base` whose contractions read zero at the positions that `plan` drops.

    The data input of every contraction that loses positions becomes `Where(kept, x, 0)`, with
    `kept` of shape `(1, ..., positions, ..., 1)`; so does the other operand where it is an
    activation too. Before opset 9, which has no Where, the data is multiplied by a 0/1 mask (the
    same but for infinite and NaN data). An op that takes statistics over an axis that loses
    positions reads `Gather(x, kept)`, so do the parameters along that axis, and its result is
    zero at the dropped positions. Weights are shared with `base`.

    Raises:
        IrpruneError: the plan does not fit the base, or drops positions of only one operand of a
            contraction or of an inexact op.
    """
    check_plan(base, plan)
    model = base.clone()
    masker = _Masker(model.graph, plan)
    for node in list(model.graph):
        losing = masker.gatherer.losing(node)  # before masks change what the node reads
        masker.mask(node)
        masker.gatherer.apply(node, losing)
    return model


def check_plan(base: ir.Model, plan: Plan) -> None:
    """Raise IrpruneError unless every axis in the plan exists in the base with that size."""
    values = named_values(base.graph)
    for name, masks in plan.axes.items():
        if name not in values:
            raise IrpruneError(f"the plan names tensor {name}, which the base lacks", mend=_OTHER)
        dims = dims_of(values[name])
        for axis, mask in masks.items():
            if dims is not None and not _fits(dims, axis, mask):
                raise IrpruneError(
                    f"the plan has {len(mask)} positions on axis {axis} of {name}, "
                    f"whose shape is {dims}",
                    mend=_OTHER,
                )


def _fits(dims: Sequence[Dim], axis: int, kept: Kept) -> bool:
    if not (0 <= axis < len(dims) and dims[axis] == len(kept)):
        return False
    if not isinstance(kept, Balanced):
        return True
    lengths = [dims[k] if k < len(dims) else None for k in kept.per]
    return axis not in kept.per and list(kept.rows.shape[:-1]) == lengths


def named_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the initializers and node outputs of the main graph by name."""
    values = [*graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    return {value.name: value for value in values if value.name}


class _Masker:
    """Inserts masks into a graph, one per tensor and mask however many nodes read it."""

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self._graph = graph
        self._plan = plan
        self._opset = graph.opset_imports.get("", 0)
        self._names = Names(graph)
        self._masked: dict[tuple[ir.Value, int, tuple[int, ...], bytes], ir.Value] = {}
        self.gatherer = Gatherer(graph, plan, self._names, self._constant)
        self._needed = _needed(graph, plan)

    def mask(self, node: ir.Node) -> None:
        """Mask every operand that the node sums over dropped positions of."""
        wanted: dict[int, dict[int, Kept]] = defaultdict(dict)
        for contraction in _contractions(node):
            kept, partner = self._kept(node, contraction)
            if kept is not None:
                wanted[contraction.data][contraction.axis] = kept
            other = contraction.weight
            if other is None or partner is None or _input(node, other).is_initializer():
                continue
            wanted[other][contraction.weight_axis] = partner
        for index, masks in wanted.items():
            value = _input(node, index)
            for axis, kept in masks.items():
                value = self._apply(node, value, axis, kept)
            node.replace_input_with(index, value)

    def _kept(self, node: ir.Node, contraction: Contraction) -> tuple[Kept | None, Kept | None]:
        """Return the kept positions of the data and of the other operand, where they agree."""
        data = _input(node, contraction.data)
        kept = self._planned(data, contraction.axis)
        if contraction.weight is None:
            return kept, None
        other = _input(node, contraction.weight)
        partner = self._planned(other, contraction.weight_axis)
        if (kept is None and partner is None) or node not in self._needed:
            return kept, partner
        if kept is None or partner is None:
            pruned, whole = (other, data) if kept is None else (data, other)
            raise IrpruneError(
                f"the plan drops contracted positions of {pruned.name} but none of {whole.name}",
                node=describe(node),
            )
        per = partner.per if isinstance(partner, Balanced) else ()
        alive = [self._planned(other, k) for k in per]
        if not _same_positions(kept, partner, alive):
            raise IrpruneError(
                f"the plan keeps different contracted positions of {data.name} and {other.name}",
                node=describe(node),
            )
        return kept, partner

    def _planned(self, value: ir.Value, axis: int) -> Kept | None:
        return self._plan.axes.get(value.name or "", {}).get(axis)

    def _apply(self, node: ir.Node, value: ir.Value, axis: int, kept: Kept) -> ir.Value:
        assert value.shape is not None
        per = kept.per if isinstance(kept, Balanced) else ()
        mask = raised(kept, len(value.shape), axis)
        key = (value, axis, per, mask.tobytes())
        if key not in self._masked:
            self._masked[key] = self._insert(node, value, mask)
        return self._masked[key]

    def _insert(self, node: ir.Node, value: ir.Value, kept: Mask) -> ir.Value:
        assert value.shape is not None and value.dtype is not None
        dtype = value.dtype.numpy()
        if self._opset >= _WHERE_SINCE:
            mask = self._constant(f"{value.name}_kept", kept)
            zero = self._constant(f"{value.name}_zero", np.zeros((), dtype))
            masked = ir.node("Where", [mask, value, zero], name=self._names.node("mask"))
        else:
            mask = self._constant(f"{value.name}_kept", kept.astype(dtype))
            masked = ir.node("Mul", [value, mask], name=self._names.node("mask"))
        output = masked.outputs[0]
        output.name = self._names.value(f"{value.name}_masked")
        output.dtype, output.shape = value.dtype, value.shape.copy()
        self._graph.insert_before(node, masked)
        return output

    def _constant(self, stem: str, array: np.ndarray) -> ir.Value:
        name = self._names.value(stem)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value


def _same_positions(kept: Kept, partner: Kept, alive: Sequence[Kept | None]) -> bool:
    """Whether the data keeps along a contracted axis what the other operand keeps along its own.

    A grouped convolution sums over a part of its data: the partner's positions are repeated in
    every group, or differ per group and are the same for all outputs of one. Of the outputs only
    those in ``alive`` count, which has the kept positions of each axis of the partner's rows.
    """
    if isinstance(kept, Balanced) or not isinstance(partner, Balanced):
        if isinstance(kept, Balanced) != isinstance(partner, Balanced):
            return False
        left, right = (k.rows if isinstance(k, Balanced) else k for k in (kept, partner))
        repeats, rest = divmod(left.shape[-1], right.shape[-1])
        return not rest and np.array_equal(left, np.tile(right, repeats))
    rows = partner.rows.reshape(-1, len(partner))
    groups, rest = divmod(len(kept), len(partner))
    if rest or not groups or len(rows) % groups:
        return False
    (outputs,) = alive if len(alive) == 1 else (None,)
    wanted: Mask = kept.reshape(groups, -1).repeat(len(rows) // groups, axis=0)
    if outputs is not None:
        rows, wanted = (take(array, {0: outputs}) for array in (rows, wanted))
    return np.array_equal(rows, wanted)


def _needed(graph: ir.Graph, plan: Plan) -> set[ir.Node]:
    """Return the nodes that graph outputs depend on although some axes keep no position.

    Of what ends in such an axis a composed plan may know parts only: what it dropped before.
    """
    gone = {
        name for name, masks in plan.axes.items() if not all(count(kept) for kept in masks.values())
    }
    found: set[ir.Node] = set()
    stack = [value.producer() for value in graph.outputs]
    while stack:
        node = stack.pop()
        if node is None or node in found:
            continue
        found.add(node)
        values = [value for value in node.inputs if value is not None]
        for body in bodies(node):
            values += [v for inner in body.all_nodes() for v in inner.inputs if v is not None]
        stack += [value.producer() for value in values if value.name not in gone]
    return found


def _contractions(node: ir.Node) -> Iterator[Contraction]:
    """Yield the contractions of a node that the analysis would look at."""
    if all(v is None or v.shape is not None for v in (*node.inputs, *node.outputs)):
        yield from rule_for(node).contractions(node)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None, "a contraction names inputs that are there"
    return value
