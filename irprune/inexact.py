"""Inexact ops take statistics over channels; a policy says which of them may lose channels.

By default whatever an inexact op takes statistics over stays. A policy's ``allow`` names the ops
that may lose channels: an op type, a norm that `irprune.norms` recognises, or ``inexact`` for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError
from irprune.norms import NORMS, find_norms
from irprune.ops import rule_for, rules
from irprune.ops.rule import Rule
from irprune.walk import INEXACT

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.plan import Plan


def names() -> list[str]:
    """Return what ``allow`` may name."""
    inexact = {op for op, rule in rules().items() if type(rule).statistics is not Rule.statistics}
    return [INEXACT, *sorted(inexact | set(NORMS))]


def checked(allow: Iterable[str]) -> tuple[str, ...]:
    """Return ``allow`` in canonical order; IrpruneError for a name that means nothing."""
    wanted = tuple(sorted(set(allow)))
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        raise IrpruneError(
            f"allow={unknown[0]}: there is no inexact op of that name",
            mend=f"known: {', '.join(names())}",
        )
    return wanted


def passed(graph: ir.Graph, plan: Plan) -> dict[str, int]:
    """Count by name the inexact ops whose statistics lose positions in a plan over the graph.

    A norm that is written out as several nodes counts once, under its name.
    """
    losing = [node for node in graph if _loses(node, plan)]
    norms = find_norms(graph) if losing else {}
    apart = [node.op_type for node in losing if node not in norms]
    counts = Counter([*apart, *(norm.name for norm in {norms[n] for n in losing if n in norms})])
    return dict(sorted(counts.items()))


def _loses(node: ir.Node, plan: Plan) -> bool:
    """Return whether the plan drops positions that the node takes statistics over."""
    for statistic in rule_for(node).statistics(node):
        data = node.inputs[statistic.data]
        if data is not None and statistic.axis in plan.axes.get(data.name or "", {}):
            return True
    return False
