"""torchvision's box operators in Python, where its compiled ones do not load.

A CPU build of torch cannot load the compiled operators of torchvision's usual wheel. Detectors
need two of them, which are slow but the same here. Where the compiled ones load, this does nothing.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor
from torchvision import extension, ops

_regions = import_module("torchvision.ops.roi_align")  # the package's own name is the function


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: boxes (N, 4), scores (N,) -> kept indices, best score first."""
    left = scores.argsort(descending=True, stable=True)
    kept = []
    while len(left):
        kept.append(left[:1])
        overlaps = ops.box_iou(boxes[left[:1]], boxes[left[1:]])[0]
        left = left[1:][~(overlaps > iou_threshold)]  # boxes without area overlap by 0 / 0: kept
    return torch.cat(kept) if kept else left


def roi_align(
    images: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool regions (K, 5) of images (N, C, H, W) to (K, C, pooled_height, pooled_width)."""
    plain = _regions._roi_align.__wrapped__  # below the decorator that would compile it
    pooled: Tensor = plain(
        images, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned
    )
    return pooled


def _has_ops() -> bool:  # the TorchScript exporter compiles it, so no lambda
    return True


def _install() -> torch.library.Library | None:
    if extension._has_ops():
        return None
    library = torch.library.Library("torchvision", "IMPL", "CPU")
    library.impl("nms", nms)
    library.impl("roi_align", roi_align)
    extension._has_ops = _regions._has_ops = _has_ops
    return library


_library = _install()
