"""Optimizer state that survives pruning: sliced by the plan that sliced the parameters."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping, Sequence
from inspect import signature
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from irprune.backends.torch.lowering.module import Lowered
from irprune.errors import IrpruneError, listed
from irprune.plan import Plan, take
from irprune.roles import MADE_OF

_PARALLEL = (DataParallel, DistributedDataParallel)


def carry_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, plan: Plan) -> Optimizer:
    """See `irprune.backends.torch.carry_optimizer`."""
    old, new = _inner(old), _inner(new)
    before, after = dict(old.named_parameters()), dict(new.named_parameters())
    replaced = _replaced(new, before, after)
    places = {
        name: _places(name, before[name], after[name], plan) for name in after if name in before
    }
    names = {id(parameter): name for name, parameter in before.items()}
    held = [[_name(parameter, names) for parameter in g["params"]] for g in optimizer.param_groups]
    state: dict[Tensor, dict[str, Any]] = {
        after[name]: _sliced(
            name, optimizer.state[before[name]], before[name], after[name], places[name]
        )
        for name in chain(*held)
        if name in places and before[name] in optimizer.state
    }
    heirs = _heirs(replaced, {*chain(*held)})
    groups: list[dict[str, Any]] = []
    for group, members in zip(optimizer.param_groups, held, strict=True):
        labels = dict(zip(members, group.get("param_names", members), strict=True))
        left = {name: label for name, label in labels.items() if name in after}
        left |= {name: name for name, former in heirs.items() if former in labels}
        if not left:  # a branch that is gone took its parameters with it
            continue
        groups.append({**group, "params": [after[name] for name in left]})
        if "param_names" in group:
            groups[-1]["param_names"] = [*left.values()]
    result = _like(optimizer, groups)
    result.state.update(state)
    for name, parameter in after.items():
        if not any(before[former].requires_grad for former in replaced.get(name, [name])):
            parameter.requires_grad_(False)
    return result


def _inner(module: nn.Module) -> nn.Module:
    """Return what torch.compile or a data-parallel wrapper holds."""
    if isinstance(module, Lowered):
        return module
    slot = "module" if isinstance(module, _PARALLEL) else "_orig_mod"
    held = module._modules.get(slot)
    return module if held is None else _inner(held)


def _replaced(new: nn.Module, before: Container[str], after: Iterable[str]) -> dict[str, list[str]]:
    """Return which old parameters each one stands for that pruning made, nearest first."""
    made = new.meta.get(MADE_OF, {}) if isinstance(new, Lowered) else {}
    found = {
        name: [former for former in made.get(name, ()) if former in before]
        for name in after
        if name not in before
    }
    if unknown := [name for name, formers in found.items() if not formers]:
        raise IrpruneError(
            f"the old module has no parameter {listed(unknown)}",
            mend="lower the model before and after the plan, with the same passes; "
            "normalize it before it is first lowered",
        )
    return found


def _heirs(replaced: Mapping[str, Sequence[str]], held: Container[str]) -> dict[str, str]:
    """Return in whose parameter group each parameter belongs that pruning made."""
    found = {}
    for name, formers in replaced.items():
        optimized = [former for former in formers if former in held]
        if optimized:
            found[name] = optimized[0]
    return found


def _like(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]) -> Optimizer:
    """Return an optimizer of other groups with the settings of one, which it does not share.

    Settings are the defaults of groups, and attributes that are called as the constructor's
    arguments are, as subclasses have them.
    """
    held = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    known = signature(type(optimizer)).parameters
    every = {**vars(optimizer), **optimizer.defaults}
    given = {name: value for name, value in every.items() if name in known}
    held, given, defaults = copy.deepcopy((held, given, optimizer.defaults))  # ties stay ties
    own = [{"params": group["params"], **rest} for group, rest in zip(groups, held, strict=True)]
    result = type(optimizer)(own, **given)
    result.defaults.update(defaults)
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
            result[key] = copy.deepcopy(value)
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
