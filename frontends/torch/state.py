"""The pruned state_dict of a run, by the names that the module gave."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from irprune.errors import IrpruneError
from irprune.frontends.torch.export import MODULE
from irprune.model import Model, Parameter
from irprune.plan import Plan, take
from irprune.roles import predecessors

_BIASED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
_VIEWS = {
    ml_dtypes.bfloat16: (np.int16, torch.bfloat16),
    ml_dtypes.float8_e4m3fn: (np.uint8, torch.float8_e4m3fn),
    ml_dtypes.float8_e5m2: (np.uint8, torch.float8_e5m2),
}
"""Of the dtypes that numpy lacks: one of their width that it has, and what torch calls them."""


def export_state_dict(model: Model, base: Model, plan: Plan) -> dict[str, Tensor]:
    """See `irprune.frontends.torch.export_state_dict`."""
    if not model.state:
        raise IrpruneError("the model is not from a PyTorch module", mend="use from_torch")
    _check_nothing_added(model)
    return {name: _entry(name, entry, model, base, plan) for name, entry in model.state.items()}


def _entry(name: str, entry: Parameter, model: Model, base: Model, plan: Plan) -> Tensor:
    """Return one tensor of the state as the run left it."""
    if entry.home is None:
        return _tensor(entry.tensor)
    for graph in (model.ir.graph, base.ir.graph):
        value = graph.initializers.get(entry.home)
        if value is not None and value.const_value is not None:
            break
    else:
        if entry.tensor.dtype.is_floating_point():
            raise IrpruneError(
                f"the parameter {name} is no longer in the graph: a pass folded it",
                mend="leave fold-batchnorm and the like out of the pipeline",
            )
        return _tensor(entry.tensor)  # an index or a shape: folded, and never sliced
    if graph is base.ir.graph:  # its branch is gone, or only its values were used
        array = take(value.const_value.numpy(), plan.axes.get(entry.home, {}))
        return _tensor(ir.Tensor(array, dtype=value.const_value.dtype))
    return _tensor(value.const_value)


def _tensor(tensor: ir.TensorProtocol) -> Tensor:
    """Return a torch tensor with a copy of the numbers."""
    array = np.array(tensor.numpy())
    if array.dtype.type in _VIEWS:
        view, dtype = _VIEWS[array.dtype.type]
        return torch.from_numpy(array.view(view)).view(dtype)
    return torch.from_numpy(array)


def _check_nothing_added(model: Model) -> None:
    """Raise IrpruneError where a pass put numbers that no parameter of the module holds."""
    homes = {entry.home for entry in model.state.values()}
    for node in model.ir.graph:
        place = _BIASED.get(node.op_type)
        for index, value in enumerate(node.inputs):
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or value.name in homes:
                continue
            if not tensor.dtype.is_floating_point() or not np.any(tensor.numpy()):
                continue
            moved = index == place or MODULE not in node.metadata_props
            if moved or predecessors(value):
                raise IrpruneError(
                    f"a pass gave it values ({value.name}) for which the module has no parameter",
                    node=f"{node.name} ({node.op_type})",
                    mend="give that layer a bias, leave dead-channels out of the pipeline, or "
                    "keep a channel of a branch that is removed",
                )
