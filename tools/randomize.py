"""Give degenerate weights random numbers: about a network of constants a proof says nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irprune.model import Model
from irprune.proof.drawn import drawn


def randomize(model: Model, seed: int = 0) -> int:
    """Replace constant weights in place; return how many.

    A weight is degenerate if all its elements are equal, also where a ConstantOfShape node makes
    it.
    """
    random = np.random.default_rng(seed)
    graph = model.ir.graph
    count = 0
    for node in list(graph):
        shape = node.inputs[0].const_value if node.op_type == "ConstantOfShape" else None
        filling = node.attributes.get("value")
        if shape is None or filling is None or filling.as_tensor().dtype != ir.DataType.FLOAT:
            continue
        constant = np.full(shape.numpy(), filling.as_tensor().numpy().item(), np.float32)
        output = node.outputs[0]
        weight = ir.Value(
            name=f"{output.name}_random", const_value=ir.tensor(drawn(constant, random))
        )
        weight.shape, weight.type = ir.Shape(constant.shape), ir.TensorType(ir.DataType.FLOAT)
        graph.register_initializer(weight)
        output.replace_all_uses_with(weight)
        graph.remove(node, safe=True)
        count += 1
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < 2:
            continue
        array = tensor.numpy()
        if (array == array.flat[0]).all():
            value.const_value = ir.tensor(drawn(array, random))
            count += 1
    return count
