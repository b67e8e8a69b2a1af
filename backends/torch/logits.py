"""What a classifier computes before its last Softmax: cross-entropy takes logits, and would
otherwise be taken of probabilities, whose gradients vanish."""

from __future__ import annotations

from irprune.model import Model
from irprune.queries import dims_of


def before_softmax(model: Model) -> Model:
    """Return the model whose first output are logits ``(n, classes)``; weights are shared.

    A model that does not end in a Softmax over its classes is returned as it is.
    """
    copy = model.clone()
    outputs = copy.ir.graph.outputs
    node = outputs[0].producer()
    if node is None or node.op_type != "Softmax" or node.domain:
        return model
    axis = node.attributes.get_int("axis", -1)  # before opset 13 the default is 1: the same here
    if len(dims_of(outputs[0]) or ()) != 2 or axis not in (1, -1):
        return model
    logits = node.inputs[0]
    assert logits is not None
    outputs[0] = logits
    if not node.outputs[0].uses() and node.outputs[0] not in outputs:
        copy.ir.graph.remove(node, safe=True)
    return copy
