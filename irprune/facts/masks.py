"""Weights that a graph computes from constants, such as ``weight_orig * weight_mask``."""

from __future__ import annotations

import onnx_ir as ir

from irprune.folding.constants import evaluate
from irprune.ops.elementwise import Elementwise
from irprune.queries import constant_of
from irprune.roles import origins, succeed
from irprune.tidy import add_initializer


def fold_masks(graph: ir.Graph) -> int:
    """Replace the results of element-wise ops on constants by initializers; return how many.

    The results keep their names; constants that nothing else reads are dropped.
    """
    count = 0
    for node in list(graph):
        sources = [value for value in node.inputs if value is not None]
        arrays = {v.name or "": array for v in sources if (array := constant_of(v)) is not None}
        known = all(value.name in arrays for value in sources)
        result, name = node.outputs[0], node.outputs[0].name or ""
        elementwise = node.op_type in Elementwise.ops and node.domain in ("", "ai.onnx")
        if not known or not elementwise or result.is_graph_output():
            continue
        (array,) = evaluate(node, arrays, graph.opset_imports)
        result.name = None
        made = add_initializer(graph, name, array)
        succeed(made, origins([result]))
        result.replace_all_uses_with(made)
        graph.remove(node, safe=True)
        for source in dict.fromkeys(sources):
            if not source.uses() and not source.is_graph_output():
                graph.initializers.pop(source.name or "")
        count += 1
    return count
