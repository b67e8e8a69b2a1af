"""onnx-graphsurgeon graphs: taken in and handed back; large constants are shared, not copied.

A graph that comes back has what graphsurgeon can hold: nodes, names, order, attributes, dtypes,
shapes with their symbols, opsets, functions and sub-graphs. It has no place for metadata and node
doc strings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.model import Model

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

_SHARED_BYTES = 1024


def from_graphsurgeon(graph: gs.Graph) -> Model:
    """Take a graph in; it is not changed, loaded constants are shared.

    Raises:
        IrpruneError: graphsurgeon cannot write the graph (an input without dtype, a bad attribute),
            or it is not a usable graph.
    """
    import onnx_graphsurgeon as gs

    try:
        proto = gs.export_onnx(graph)
    except Exception as error:  # graphsurgeon raises many kinds
        reason = f"graphsurgeon cannot write the graph: {error}"
        raise IrpruneError(reason, mend="check it with graphsurgeon.export_onnx") from error
    model = Model.from_proto(proto, graph.name or "model")
    for name, tensor in graph.tensors().items():
        value = model.ir.graph.initializers.get(name)
        array = _loaded(tensor)
        if value is not None and value.const_value is not None and array is not None:
            dtype = value.const_value.dtype
            if array.nbytes >= _SHARED_BYTES and array.dtype == dtype.numpy():
                value.const_value = ir.Tensor(array, dtype=dtype, name=name)
    return model


def to_graphsurgeon(model: Model) -> gs.Graph:
    """Return the model as a graph; constants are views of the model's weights.

    Raises:
        IrpruneError: graphsurgeon cannot hold the model.
    """
    import onnx_graphsurgeon as gs

    work = model.ir.clone()
    shared = {}
    for name, value in work.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _SHARED_BYTES:
            shared[name] = tensor.numpy()
            empty = np.zeros([0] * len(tensor.shape), shared[name].dtype)
            value.const_value = ir.Tensor(empty, dtype=tensor.dtype, name=name)
    for name in model.overridable:
        work.graph.inputs.append(work.graph.initializers[name])
    try:
        graph = gs.import_onnx(ir.serde.serialize_model(work))
    except Exception as error:  # graphsurgeon raises many kinds
        raise IrpruneError(f"graphsurgeon cannot hold the model: {error}") from error
    tensors = graph.tensors()
    for name, array in shared.items():
        if name in tensors:
            tensors[name].values = array
    return graph


def _loaded(tensor: Any) -> np.ndarray | None:
    """Return the array of a constant that is in memory; a lazy one stays where it is."""
    import onnx_graphsurgeon as gs

    if not isinstance(tensor, gs.Constant) or not isinstance(tensor._values, np.ndarray):
        return None
    return tensor._values
