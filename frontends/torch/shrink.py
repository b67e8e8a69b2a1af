"""A module made smaller in place: its tensors sliced by a plan, its layers' sizes repaired."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from irprune.errors import IrpruneError
from irprune.frontends.torch.heads import refit, states_heads
from irprune.frontends.torch.layers import CONTRACTED, REPAIRS, is_plain, standard
from irprune.frontends.torch.windows import is_windowed, shrink_windows
from irprune.plan import Balanced, Kept, Mask, Plan, first_row, raised, take

Example = tuple[tuple[Any, ...], dict[str, Any]]
Changes = dict[str, dict[str, Mapping[int, Kept]]]
"""Kept positions by layer path, then tensor name and axis."""

_BOUND = 1e-4
_PROJECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def apply_to_module(module: nn.Module, plan: Plan, example: Example | None) -> nn.Module:
    """See `irprune.frontends.torch.apply_to_module`."""
    changes = _changes(module, plan)
    if example is None:
        _require_known(module, changes)
    trial = copy.deepcopy(module)
    _shrink(trial, changes)
    if example is not None:
        _compare(module, trial, changes, example)
    del trial
    _shrink(module, changes)
    return module


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by name; a tied one under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _changes(module: nn.Module, plan: Plan) -> Changes:
    """Return what the plan does to each layer; IrpruneError where it is not made for the module."""
    tensors = dict(_tensors(module))
    tied: dict[int, Mapping[int, Kept]] = {}
    for name in plan.axes.keys() & tensors.keys():
        tensor, masks = tensors[name], plan.axes[name]
        for axis, kept in masks.items():
            rows = list(kept.rows.shape[:-1]) if isinstance(kept, Balanced) else []
            per = kept.per if isinstance(kept, Balanced) else ()
            lengths = [tensor.shape[k] if k < tensor.dim() else None for k in per]
            if axis >= tensor.dim() or tensor.shape[axis] != len(kept) or rows != lengths:
                raise IrpruneError(
                    f"the plan's axis {axis} of {name} does not fit its shape {[*tensor.shape]}",
                    mend="apply the plan once, to a module of the same architecture",
                )
        tied[id(tensor)] = masks
    if plan and not tied:
        raise IrpruneError(
            "the plan names no parameter of the module",
            mend="make the plan on irprune.from_torch(module, ...)",
        )
    changes: Changes = {}
    for name, tensor in tensors.items():
        if id(tensor) in tied:
            path, _, own = name.rpartition(".")
            changes.setdefault(path, {})[own] = tied[id(tensor)]
    return changes


def _cuts(module: nn.Module, changes: Changes) -> dict[str, dict[str, Mask]]:
    """Return which rows its projections keep, by name, of each owner that is not standard."""
    cuts: dict[str, dict[str, Mask]] = {}
    for path, masks in changes.items():
        kept = masks.get("weight", {}).get(0)
        owner, _, name = path.rpartition(".")
        if path and kept is not None and isinstance(module.get_submodule(path), _PROJECTIONS):
            cuts.setdefault(owner, {})[name] = first_row(kept)
    return {path: cut for path, cut in cuts.items() if standard(module.get_submodule(path)) is None}


def _shrink(module: nn.Module, changes: Changes) -> None:
    """Slice the tensors of the changed layers and repair their attributes."""
    made: dict[int, Tensor] = {}
    old = []  # keeps the old tensors, and so their ids, until all are replaced
    for path, layer in _distinct(module, changes):
        masks = changes[path]
        for name, axes in masks.items():
            tensor = getattr(layer, name)
            old.append(tensor)
            if id(tensor) not in made:
                made[id(tensor)] = _sliced(tensor, axes, f"{path}.{name}".lstrip("."))
            setattr(layer, name, made[id(tensor)])
        kind = standard(layer)
        if kind is not None:
            with _naming(path, layer):
                REPAIRS[kind](layer, masks)
    cuts = _cuts(module, changes)
    for path, layer in _distinct(module, (path.rpartition(".")[0] for path in changes)):
        with _naming(path, layer):
            if is_windowed(layer):
                shrink_windows(layer, cuts.get(path, {}))
            elif path in cuts:
                refit(layer, cuts[path])


def _distinct(module: nn.Module, paths: Iterable[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield each layer once, under the first of its paths: owners may share a layer."""
    seen: set[nn.Module] = set()
    for path in paths:
        layer = module.get_submodule(path)
        if layer not in seen:
            seen.add(layer)
            yield path, layer


@contextmanager
def _naming(path: str, layer: nn.Module) -> Iterator[None]:
    """While it lasts, errors that name no node name this layer."""
    try:
        yield
    except IrpruneError as error:
        error.node = error.node or _describe(path, layer)
        raise


def _sliced(tensor: Tensor, axes: Mapping[int, Kept], name: str) -> Tensor:
    """Return the kept positions of a parameter or buffer as a new one."""
    index = take(np.arange(tensor.numel()).reshape(tensor.shape), axes)
    if not index.size:
        raise IrpruneError(
            f"{name} keeps no channel: its branch is gone, the forward still runs it",
            mend="prune with min=1",
        )
    places = torch.from_numpy(np.ascontiguousarray(index)).to(tensor.device)
    result = tensor.detach().flatten()[places.flatten()].reshape(index.shape)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, requires_grad=tensor.requires_grad)
    return result


def _require_known(module: nn.Module, changes: Changes) -> None:
    """Raise IrpruneError for a changed layer whose attributes are not known, and for attention
    written by hand, which cuts what its projections create into heads."""
    cuts = _cuts(module, changes)
    for path, layer in module.named_modules():
        if is_windowed(layer):
            continue
        if path in changes and not is_plain(layer):
            reason = f"its {', '.join(changes[path])} shrink, and what it does with them is unknown"
        elif path in cuts and (name := states_heads(layer)):
            reason = f"its layers shrink, and its attribute {name} may state their size"
        else:
            continue
        raise IrpruneError(
            reason,
            node=_describe(path, layer),
            mend="pass example args to have the result checked, or skip it in prune",
        )


def _compare(module: nn.Module, trial: nn.Module, changes: Changes, example: Example) -> None:
    """Raise IrpruneError unless a shrunk copy computes what the masked module does."""
    masked = copy.deepcopy(module)
    for path, masks in changes.items():
        layer = masked.get_submodule(path)
        kind = standard(layer)
        for name, axis in CONTRACTED.get(kind, ()) if kind else ():
            kept = masks.get(name, {}).get(axis)
            if kept is not None:
                tensor = getattr(layer, name)
                mask = torch.from_numpy(raised(kept, tensor.dim(), axis)).to(tensor.device)
                tensor.data.mul_(mask)
    for path, cut in _cuts(masked, changes).items():
        if states_heads(owner := masked.get_submodule(path)):
            _mask_rows(owner, cut)
    expected, _ = _outputs(masked, example)
    actual, failed = _outputs(trial, example)
    if failed is not None:
        path, layer, error = failed
        raise IrpruneError(
            f"its forward does not fit its smaller layers: {error}",
            node=_describe(path, layer),
            mend="prune with skip= its layers, or mend its forward",
        )
    far = [_distance(a, b) for a, b in zip(actual, expected, strict=True)]
    if not all(distance <= _BOUND for distance in far):
        raise IrpruneError(
            f"the smaller {type(module).__name__} computes something else than the masked one: "
            f"relative error {max(far):.2g}",
            mend="its forward holds sizes of its own, or channels pass an inexact op",
        )


def _mask_rows(owner: nn.Module, cut: Mapping[str, Mask]) -> None:
    """Zero the dropped rows of projections: attention sums over those of queries and keys."""
    for name, mask in cut.items():
        layer = owner.get_submodule(name)
        for tensor in (layer.weight, layer.bias):
            if isinstance(tensor, Tensor):
                tensor.data[torch.from_numpy(~mask).to(tensor.device)] = 0


def _outputs(
    module: nn.Module, example: Example
) -> tuple[list[Tensor], tuple[str, nn.Module, Exception] | None]:
    """Return the output tensors in eval mode; or the innermost layer that failed, and how."""
    module.eval()
    inside: list[tuple[str, nn.Module]] = []
    for path, layer in module.named_modules():
        layer.register_forward_pre_hook(lambda *_, at=(path, layer): inside.append(at))
        layer.register_forward_hook(lambda *_: inside.pop() and None)
    args, kwargs = example
    try:
        with torch.no_grad():
            result = module(*args, **kwargs)
    except Exception as error:  # whatever a forward raises for sizes that it does not expect
        written = [at for at in inside if standard(at[1]) is None]
        path, layer = (written or inside or [("", module)])[-1]
        return [], (path, layer, error)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)], None


def _distance(actual: Tensor, expected: Tensor) -> float:
    """Return max|a - b| / max|b|, infinite where shapes differ or a number is missing."""
    if actual.shape != expected.shape:
        return float("inf")
    if not actual.numel():
        return 0.0
    a, b = actual.double(), expected.double()
    distance = float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
    return distance if np.isfinite(distance) else float("inf")


def _describe(path: str, layer: nn.Module) -> str:
    return f"{path or 'the module'} ({type(layer).__name__})"
