"""Resize and its relatives: interpolation, pixel shuffles, sampling at points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from irprune.backends.torch.lowering.host import single
from irprune.backends.torch.lowering.lower import Unsupported
from irprune.queries import Dim

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_SMOOTH = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear"}
_SMOOTH |= {("cubic", 2): "bicubic"}
_INTERPOLATED = ("half_pixel", "pytorch_half_pixel", "align_corners")
"""Coordinates that torch's kernels have."""
_FORMS = (*_INTERPOLATED, "asymmetric", "tf_half_pixel_for_nn", "half_pixel_symmetric")
_CUBIC = {False: -0.75, True: -0.5}
"""torch's cubic coefficient, without and with antialiasing."""


def _resize(low: Lowering, node: ir.Node) -> fx.Node:
    rank = low.rank(low.input(node, 0))
    scales, sizes = _target(low, node, rank)
    old = low.opset < 11
    form = low.text(node, "coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    mode = low.text(node, "mode", "nearest")
    policy = low.text(node, "keep_aspect_ratio_policy", "stretch")
    smooth = bool(low.integer(node, "antialias", 0))
    excluded = bool(low.integer(node, "exclude_outside", 0))
    # torch leaves out what lies outside where it antialiases, and only there.
    if excluded != smooth:
        raise Unsupported(f"antialias is {smooth:d}, but exclude_outside is {excluded:d}")
    if policy != "stretch":
        raise Unsupported(f"its keep_aspect_ratio_policy is {policy}")
    if form not in _FORMS:
        raise Unsupported(f"its coordinates are {form}")
    if mode == "nearest":
        rounding = low.text(node, "nearest_mode", "outward" if old else "round_prefer_floor")
        return low.call(nearest, low.data(node), scales, sizes, form, rounding)
    dims = low.dims(low.input(node, 0))
    spatial = scales[:2] == [1, 1] if scales is not None else _stay(dims[:2], sizes or [])
    if spatial and (mode, rank - 2) in _SMOOTH and form in _INTERPOLATED:
        return _interpolated(low, node, mode, form, smooth, (scales, sizes))
    if mode != "linear" or smooth:
        raise Unsupported(f"its mode is {mode} with coordinates {form} on {rank} axes {dims}")
    return low.call(linear, low.data(node), scales, sizes, form)


def _stay(dims: list[Dim], sizes: list[Any]) -> bool:
    """Return whether the first axes keep their lengths, as far as these are known."""
    pairs = zip(dims, sizes, strict=False)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _target(low: Lowering, node: ir.Node, rank: int) -> tuple[list[float] | None, list[Any] | None]:
    """Return scales or sizes of all axes; None for the other."""
    if "scales" in node.attributes:
        return list(node.attributes["scales"].as_floats()), None
    axes = low.ints(node, None, "axes") or list(range(rank))
    places = (1, None) if node.op_type == "Upsample" or low.opset < 11 else (2, 3)
    given = low.input(node, places[0])
    numbers = low.constant(given)
    if given is not None and (numbers is None or numbers.size):
        if numbers is None:
            raise Unsupported(f"its scales {given.name} are computed")
        scales = [1.0] * rank
        for axis, scale in zip(axes, numbers.ravel().tolist(), strict=True):
            scales[axis] = scale
        return scales, None
    if places[1] is None:
        raise Unsupported("its scales are missing")
    value = low.input(node, 0)
    assert value is not None
    sizes = [low.length(value, k) for k in range(rank)]
    for axis, size in zip(axes, low.sizes(node, places[1]), strict=True):
        sizes[axis] = size
    return None, sizes


def _interpolated(
    low: Lowering,
    node: ir.Node,
    mode: str,
    form: str,
    smooth: bool,
    target: tuple[list[float] | None, list[Any] | None],
) -> fx.Node:
    scales, sizes = target
    kind = _SMOOTH[mode, low.rank(low.input(node, 0)) - 2]
    coefficient = low.real(node, "cubic_coeff_a", -0.75)
    if mode == "cubic" and coefficient != _CUBIC[smooth]:
        raise Unsupported(f"its cubic coefficient is {coefficient}")
    return low.call(
        interpolated, low.data(node), None if scales is None else scales[2:],
        None if sizes is None else sizes[2:], kind, form, smooth,
    )  # fmt: skip


def interpolated(
    x: Tensor, scales: list[float] | None, sizes: list[int] | None, kind: str, form: str,
    smooth: bool,
) -> Tensor:  # fmt: skip
    """Resize the spatial axes with torch's kernel, to the lengths that ONNX gives them."""
    lengths = list(x.shape[2:])
    if sizes is None:
        assert scales is not None
        sizes = [resized(length, scale) for length, scale in zip(lengths, scales, strict=True)]
        if sizes == lengths:
            return x
        still = [a == b and s != 1 for a, b, s in zip(lengths, sizes, scales, strict=True)]
        if any(still) and "linear" in kind and not smooth:  # torch leaves such an axis as it is
            return linear(x, [1, 1, *scales], None, form)
    if form == "pytorch_half_pixel" and not smooth:
        for axis, (length, size) in enumerate(zip(lengths, sizes, strict=True), 2):
            x = x.narrow(axis, 0, 1) if size == 1 != length else x  # it takes the first element
    aligned = form == "align_corners"
    if scales is None or aligned:
        return functional.interpolate(x, sizes, None, kind, aligned, False, smooth)
    # torch rounds lengths down in float64, and takes no length beside a scale.
    factors = [
        scale if int(length * scale) == size else (size + 1e-6) / length
        for length, scale, size in zip(x.shape[2:], scales, sizes, strict=True)
    ]
    return functional.interpolate(x, None, factors, kind, aligned, False, smooth)


def resized(length: int, scale: float) -> int:
    """Return the length that a scale gives, rounded down in float32 as runtimes do."""
    return int(single(length * scale))


def _positions(
    length: int, scale: float | None, size: int | None, form: str, like: Tensor
) -> Tensor:
    """Return where each output position lies along an input axis."""
    outputs = resized(length, scale) if size is None and scale is not None else int(size or 0)
    ratio = scale if scale is not None else outputs / length
    at = torch.arange(outputs, device=like.device, dtype=torch.float32)
    match form:
        case "asymmetric":
            return at / ratio
        case "align_corners":
            return at * ((length - 1) / max(outputs - 1, 1))
        case "pytorch_half_pixel" if outputs == 1:
            return at * 0
        case "tf_half_pixel_for_nn":
            return (at + 0.5) / ratio
        case "half_pixel_symmetric":
            start = length / 2 * (1 - outputs / (ratio * length))
            return start + (at + 0.5) / ratio - 0.5
    return (at + 0.5) / ratio - 0.5


def nearest(
    x: Tensor, scales: list[float] | None, sizes: list[int] | None, form: str, rounding: str
) -> Tensor:
    """Take the nearest element along each axis that is scaled, if a length changes at all."""
    if scales is not None and all(map(_keeps, x.shape, scales)):
        return x
    for axis in range(x.dim()):
        scale = None if scales is None else scales[axis]
        size = None if sizes is None else sizes[axis]
        length = x.shape[axis]
        if scale == 1 or size == length:
            continue
        at = _positions(length, scale, size, form, x)
        fewer = len(at) < length  # before opset 11 runtimes round up where that is so
        if rounding == "floor" or (rounding == "outward" and not fewer):
            at = at.floor()
        elif rounding == "ceil" or rounding == "outward":
            at = at.ceil()
        elif rounding == "round_prefer_floor":
            at = (at - 0.5).ceil()
        else:
            at = (at + 0.5).floor()
        x = x.index_select(axis, at.long().clamp(0, length - 1))
    return x


def _keeps(length: int, scale: float) -> bool:
    return resized(length, scale) == length


def linear(x: Tensor, scales: list[float] | None, sizes: list[int] | None, form: str) -> Tensor:
    """Interpolate linearly, where torch has no kernel, as `nearest` does."""
    if scales is not None and all(map(_keeps, x.shape, scales)):
        return x
    for axis in range(x.dim()):
        scale = None if scales is None else scales[axis]
        size = None if sizes is None else sizes[axis]
        length = x.shape[axis]
        if scale == 1 or size == length:
            continue
        at = _positions(length, scale, size, form, x).clamp(0, length - 1)
        left = at.floor().long()
        right = (left + 1).clamp(max=length - 1)
        weight = (at - left).to(x.dtype).view(-1, *[1] * (x.dim() - axis - 1))
        x = x.index_select(axis, left) * (1 - weight) + x.index_select(axis, right) * weight
    return x


def _depth_to_space(low: Lowering, node: ir.Node) -> fx.Node:
    size = low.integer(node, "blocksize", 1)
    if low.text(node, "mode", "DCR") == "CRD":
        return low.call(functional.pixel_shuffle, low.data(node), size)
    return low.call(depth_to_space, low.data(node), size)


def depth_to_space(x: Tensor, size: int) -> Tensor:
    """DepthToSpace, depth first: ``(N, s*s*C, H, W)`` to ``(N, C, s*H, s*W)``."""
    n, c, h, w = x.shape
    x = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(low: Lowering, node: ir.Node) -> fx.Node:
    return low.call(space_to_depth, low.data(node), low.integer(node, "blocksize", 1))


def space_to_depth(x: Tensor, size: int) -> Tensor:
    """SpaceToDepth: ``(N, C, s*H, s*W)`` to ``(N, s*s*C, H, W)``."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * size**2, h // size, w // size)


def _grid_sample(low: Lowering, node: ir.Node) -> fx.Node:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = low.text(node, "mode", "linear")
    padding = low.text(node, "padding_mode", "zeros")
    aligned = bool(low.integer(node, "align_corners", 0))
    return low.call(
        functional.grid_sample, low.data(node, 0), low.data(node, 1), modes.get(mode, mode),
        padding, aligned,
    )  # fmt: skip


RULES: dict[str, Rule] = {
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "GridSample": _grid_sample,
}
