"""Optimizer state that survives pruning: sliced by the plan that sliced the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from irprune.errors import IrpruneError
from irprune.plan import Plan, take


def carry_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, plan: Plan) -> Optimizer:
    """See `irprune.backends.torch.carry_optimizer`."""
    before, after = dict(old.named_parameters()), dict(new.named_parameters())
    if fresh := [name for name in after if name not in before]:
        raise IrpruneError(
            f"the old module has no parameter {', '.join(fresh[:4])}",
            mend="lower the model before and after the plan, with the same passes",
        )
    places = {name: _places(name, before[name], after[name], plan) for name in after}
    names = {id(parameter): name for name, parameter in before.items()}
    groups: list[dict[str, Any]] = []
    state: dict[Tensor, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        held = {_name(parameter, names): parameter for parameter in group["params"]}
        alive = {name: old for name, old in held.items() if name in after}
        if not alive:  # a branch that is gone took its parameters with it
            continue
        left = {**group, "params": [after[name] for name in alive]}
        if "param_names" in group:
            labels = zip(group["param_names"], held, strict=True)
            left["param_names"] = [label for label, name in labels if name in after]
        groups.append(left)
        for name, parameter in alive.items():
            if parameter in optimizer.state:
                kept = optimizer.state[parameter]
                state[after[name]] = _sliced(name, kept, parameter, after[name], places[name])
    known = signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in known}
    result = type(optimizer)(groups, **settings)
    result.state.update(state)
    return result


def _name(parameter: Tensor, names: Mapping[int, str]) -> str:
    if id(parameter) not in names:
        raise IrpruneError(
            f"the optimizer holds a tensor {[*parameter.shape]} that is no parameter of the module",
            mend="pass the module whose parameters the optimizer was made with",
        )
    return names[id(parameter)]


def _places(name: str, old: Tensor, new: Tensor, plan: Plan) -> Tensor:
    """Return which elements of a parameter stay, by their places in the flat tensor."""
    axes = plan.axes.get(name, {})
    fits = all(k < old.dim() and old.shape[k] == len(kept) for k, kept in axes.items())
    kept = np.arange(old.numel()).reshape(old.shape)
    kept = take(kept, axes) if fits else kept
    if not fits or kept.shape != tuple(new.shape):
        raise IrpruneError(
            f"the plan does not lead from {name} {[*old.shape]} to {[*new.shape]}",
            mend="pass the plan between just these two modules",
        )
    return torch.from_numpy(np.ascontiguousarray(kept))


def _sliced(
    name: str, held: Mapping[str, Any], old: Tensor, new: Tensor, places: Tensor
) -> dict[str, Any]:
    """Return copies of what an optimizer keeps of one parameter.

    Tensors of the parameter's shape are sliced as it was; steps and other scalars stay.
    """
    result: dict[str, Any] = {}
    for key, value in held.items():
        if not isinstance(value, Tensor):
            result[key] = value
        elif value.shape == old.shape:
            kept = value.detach()[torch.unravel_index(places.to(value.device), old.shape)]
            order = torch.channels_last if _is_channels_last(new) else torch.contiguous_format
            result[key] = kept.contiguous(memory_format=order)
        elif value.numel() == 1:
            result[key] = value.detach().clone()
        else:
            raise IrpruneError(
                f"the optimizer's {key} {[*value.shape]} of {name} is laid out unlike the "
                f"parameter {[*old.shape]}: no plan says how to slice it",
                mend="start the optimizer anew, or use one that keeps its state by element",
            )
    return result


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
