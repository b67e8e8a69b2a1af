"""Convolutions, plain and transposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.nn import functional

from irprune.backends.torch.lowering import layers
from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_Kinds = tuple[Callable[..., nn.Module], ...]
_CONVS: _Kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: _Kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FUNCTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED_FUNCTIONS = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def window(
    low: Lowering, node: ir.Node, x: fx.Node, kernel: Sequence[int], fill: float
) -> tuple[fx.Node, list[int]]:
    """Return the data of a window op, padded where torch cannot, and the pads left for the layer.

    Pads that differ at the two ends, and `auto_pad`, become a node of their own.
    """
    spatial = len(kernel)
    strides = low.ints(node, None, "strides") or [1] * spatial
    dilations = low.ints(node, None, "dilations") or [1] * spatial
    automatic = low.text(node, "auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        upper = automatic == "SAME_UPPER"
        made = low.call(layers.same_pad, x, list(kernel), strides, dilations, upper, fill)
        return made, [0] * spatial
    pads = low.ints(node, None, "pads") or [0] * 2 * spatial
    if automatic == "VALID":
        pads = [0] * 2 * spatial
    before, after = pads[:spatial], pads[spatial:]
    if before == after:
        return x, before
    return low.call(functional.pad, x, torch_pads(before, after), value=fill), [0] * spatial


def torch_pads(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return pads of the last axes as functional.pad takes them: last axis first."""
    return [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]


def _conv(low: Lowering, node: ir.Node) -> fx.Node:
    weight, bias = low.input(node, 1), low.input(node, 2)
    assert weight is not None
    dims = low.dims(weight)
    if not 3 <= len(dims) <= 5 or not all(isinstance(dim, int) for dim in dims):
        raise Unsupported(f"the shape of its weight is {dims}")
    outer, inner, *kernel = (int(dim) for dim in dims if isinstance(dim, int))
    spatial, groups = len(kernel), low.integer(node, "group", 1)
    x, pads = window(low, node, low.data(node), kernel, 0.0)
    strides = low.ints(node, None, "strides") or [1] * spatial
    dilations = low.ints(node, None, "dilations") or [1] * spatial
    if low.held(weight) and (bias is None or low.held(bias)):
        layer = _CONVS[spatial - 1](
            inner * groups, outer, tuple(kernel), tuple(strides), tuple(pads), tuple(dilations),
            groups, bias is not None, device="meta",
        )  # fmt: skip
        return low.layer(node, layer, tensors(weight, bias), x)
    made: Any = None if bias is None else low.tensor(bias)
    function = _FUNCTIONS[spatial - 1]
    return low.call(function, x, low.tensor(weight), made, strides, pads, dilations, groups)


def tensors(weight: ir.Value, bias: ir.Value | None) -> dict[str, ir.Value]:
    """Return the tensors of a layer by attribute."""
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _conv_transpose(low: Lowering, node: ir.Node) -> fx.Node:
    """Transposed convolution; a padded one is cut where its ends differ."""
    weight, bias = low.input(node, 1), low.input(node, 2)
    assert weight is not None
    dims = low.dims(weight)
    if not 3 <= len(dims) <= 5 or not all(isinstance(dim, int) for dim in dims):
        raise Unsupported(f"the shape of its weight is {dims}")
    inner, outer, *kernel = (int(dim) for dim in dims if isinstance(dim, int))
    spatial, groups = len(kernel), low.integer(node, "group", 1)
    strides = low.ints(node, None, "strides") or [1] * spatial
    dilations = low.ints(node, None, "dilations") or [1] * spatial
    extra = low.ints(node, None, "output_padding") or [0] * spatial
    before, after, extra = _ends(low, node, kernel, strides, dilations, extra)
    even = before == after and min(before) >= 0
    pads = before if even else [0] * spatial
    x = low.data(node)
    if low.held(weight) and (bias is None or low.held(bias)):
        layer = _TRANSPOSED[spatial - 1](
            inner, outer * groups, tuple(kernel), tuple(strides), tuple(pads), tuple(extra),
            groups, bias is not None, tuple(dilations), device="meta",
        )  # fmt: skip
        made = low.layer(node, layer, tensors(weight, bias), x)
    else:
        shift: Any = None if bias is None else low.tensor(bias)
        function = _TRANSPOSED_FUNCTIONS[spatial - 1]
        made = low.call(
            function, x, low.tensor(weight), shift, strides, pads, extra, groups, dilations
        )
    if even:
        return made
    cut = torch_pads([-n for n in before], [-n for n in after])
    return low.call(functional.pad, made, cut)


def _ends(
    low: Lowering,
    node: ir.Node,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: list[int],
) -> tuple[list[int], list[int], list[int]]:
    """Return what is cut before and after each axis, and the output padding."""
    spatial = len(kernel)
    automatic = low.text(node, "auto_pad", "NOTSET")
    wanted = low.ints(node, None, "output_shape")
    if automatic == "NOTSET" and wanted is None:
        pads = low.ints(node, None, "pads") or [0] * 2 * spatial
        return pads[:spatial], pads[spatial:], extra
    before, after, extra = [], [], list(extra)
    lengths = low.dims(low.input(node, 0))[2:]
    for k, length in enumerate(lengths):
        full = (kernel[k] - 1) * dilations[k] + 1 + extra[k]
        if wanted is not None and isinstance(length, int):
            total = strides[k] * (length - 1) + full - wanted[-spatial:][k]
        elif wanted is None and automatic.startswith("SAME"):
            total = full - strides[k]
        elif wanted is None:
            total = 0
        else:
            raise Unsupported("its output_shape is fixed and its input's is not")
        if total < 0:  # longer than the windows reach: the bias alone stands there
            extra[k], total = extra[k] - total, 0
        small = total // 2
        upper = automatic == "SAME_UPPER"
        before.append(small if upper else total - small)
        after.append(total - small if upper else small)
    return before, after, extra


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
