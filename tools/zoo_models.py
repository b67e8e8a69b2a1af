"""The networks of the zoo: all of torchvision's, and one or more of every module of timm.

``networks()`` lists them; each knows how it is built and what inputs it takes. timm's names get
the prefix ``timm-``, for several stand in torchvision under the same name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
if (SHARED / "torchvision_cpu.py").exists():
    sys.path.insert(0, str(SHARED))
    import torchvision_cpu  # noqa: F401

import zoo_ops  # noqa: E402, F401 (torchvision's own kernels, where they do not load)
from torchvision import models as vision  # noqa: E402

VISION_SIZES = {
    "inception_v3": 299,
    "vit_?_32": 128,
    "vit_*": 112,
    "swin_v2_*": 256,
    "*rcnn_*": 160,
    "ssd300_*": 300,
    "ssdlite320_*": 320,
    "retinanet_*": 128,
    "fcos_*": 128,
    "r3d_*": 64,
    "mc3_*": 64,
    "r2plus1d_*": 64,
    "swin3d_*": 112,
}
"""Height and width of torchvision's images, 224 where no name fits."""

FRAMES = {"mvit_*": 16, "s3d": 14}
"""Images of a film, 8 where no name fits."""

TIMM = {
    "beit_base_patch16_224": 96, "botnet26t_256": 256, "halonet26t": 256, "lambda_resnet26t": 128,
    "gernet_s": 128, "mobileone_s0": 128, "cait_xxs24_224": 112, "coat_tiny": 128,
    "coat_lite_tiny": 128, "convit_tiny": 112, "convmixer_768_32": 56, "convnext_atto": 128,
    "convnextv2_atto": 128, "cpubone_nano": 128, "crossvit_tiny_240": 240, "csatv2": 256,
    "cs3darknet_s": 128, "cspdarknet53": 128, "cspnext_tiny": 128, "davit_tiny": 224,
    "deepseek_vit_412m": 112, "deit_tiny_patch16_224": 112, "deit3_small_patch16_224": 112,
    "densenetblur121d": 128, "dla34": 128, "dla60_res2net": 128, "dpn48b": 128,
    "edgenext_xx_small": 256, "efficientformer_l1": 224, "efficientformerv2_s0": 224,
    "mixnet_s": 128, "tf_efficientnetv2_b0": 128, "efficientvim_m1": 224, "efficientvit_b0": 128,
    "efficientvit_m0": 224, "eva02_tiny_patch14_224": 112, "fasternet_t0": 128, "fastvit_t8": 128,
    "fastvit_sa12": 128, "focalnet_tiny_srf": 224, "gcvit_xxtiny": 224, "gemma4_vit_167m": 96,
    "ghostnet_050": 128, "ghostnetv2_100": 128, "ghostnetv3_050": 128, "hardcorenas_a": 128,
    "hgnetv2_b0": 128, "hiera_tiny_224": 224, "sam2_hiera_tiny": 224, "hrnet_w18_small": 128,
    "iformer_t": 224, "inception_next_atto": 128, "inception_resnet_v2": 128, "inception_v3": 128,
    "inception_v4": 128, "lcnetv2_small": 128, "levit_128s": 224, "levit_conv_128s": 224,
    "lowformer_b0": 128, "mambaout_femto": 128, "coatnet_nano_rw_224": 224,
    "maxvit_tiny_rw_224": 224, "maxxvit_rmlp_nano_rw_256": 256, "poolformer_s12": 128,
    "caformer_s18": 128, "convformer_s18": 128, "mixer_s32_224": 224, "gmlp_ti16_224": 112,
    "resmlp_12_224": 112, "fbnetv3_b": 128, "lcnet_050": 128, "mobilenetv3_small_100": 128,
    "mobilenetv5_300m": 128, "mobilevit_xxs": 128, "mobilevitv2_050": 128, "mvitv2_tiny": 224,
    "naflexvit_base_patch16_gap": 96, "nasnetalarge": 96, "nest_tiny": 224, "nextvit_small": 128,
    "eca_nfnet_l0": 128, "nf_resnet50": 128, "pit_ti_224": 224, "pit_ti_distilled_224": 224,
    "pnasnet5large": 96, "pvt_v2_b0": 128, "pvt_v2_b2_li": 128, "qwen3_vit_88m": 128,
    "rdnet_tiny": 128, "regnety_002": 128, "regnetz_b16": 128, "repghostnet_050": 128,
    "repvit_m0_9": 128, "res2net50_14w_8s": 128, "resnest14d": 128, "ecaresnet26t": 128,
    "seresnet18": 128, "resnetv2_50x1_bit": 128, "resnetv2_50": 128, "rexnet_100": 128,
    "selecsls42b": 128, "legacy_seresnet18": 128, "sequencer2d_s": 224, "shvit_s1": 224,
    "skresnet18": 128, "starnet_s1": 128, "swiftformer_xs": 224,
    "swin_tiny_patch4_window7_224": 224, "swin_s3_tiny_224": 224, "swinv2_tiny_window8_256": 256,
    "swinv2_cr_tiny_224": 224, "tiny_vit_5m_224": 224, "tnt_s_patch16_224": 112, "tresnet_m": 128,
    "twins_pcpvt_small": 128, "twins_svt_small": 224, "vgg11_bn": 64, "visformer_tiny": 224,
    "vit_tiny_patch16_224": 112, "vit_tiny_r_s16_p8_224": 128, "vit_relpos_small_patch16_224": 112,
    "samvit_base_patch16_224": 112, "vitamin_small_224": 112, "volo_d1_224": 224,
    "ese_vovnet19b_dw": 128, "legacy_xception": 128, "xception41": 128,
    "xcit_nano_12_p16_224": 112,
}  # fmt: skip
"""At least one network of each module of timm, with a height and width that suits it."""


@dataclass(frozen=True)
class Network:
    """A network of the zoo; inputs are (N, 3, H, W), or (N, 3, T, H, W) with `frames` T."""

    name: str
    source: str
    make: Callable[[], nn.Module]
    size: int
    frames: int = 0
    dense: bool = True
    """Whether output shapes depend on input shapes alone: detectors list what they find."""

    def inputs(self, batch: int, seed: int) -> Tensor:
        """Random smooth photos or films."""
        if not self.frames:
            return photos(batch, self.size, seed)
        film = photos(batch * self.frames, self.size, seed)
        first = film[:: self.frames].repeat_interleave(self.frames, 0)
        moving = first + 0.3 * film
        return moving.unflatten(0, (batch, self.frames)).transpose(1, 2).contiguous()

    def build(self) -> nn.Module:
        """Return the network as its library initialises it, in eval mode."""
        return self.make().eval()


class Detector(nn.Module):
    """One of torchvision's detectors, for photos (N, 3, H, W); names what it finds on the first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, photos: Tensor) -> dict[str, Tensor]:
        found: list[dict[str, Tensor]] = self.model(list(photos))
        return found[0]


def photos(batch: int, size: int, seed: int) -> Tensor:
    """Random smooth "photos", float32 (N, 3, size, size).

    Noise at several scales with a brightness, contrast and tint of its own per image: global
    pooling of white noise would give every image the same features.
    """
    generator = torch.Generator().manual_seed(seed)
    photo = torch.randn(batch, 3, 1, 1, generator=generator).repeat(1, 1, size, size)
    for cells in (3, 12, 48):
        noise = torch.randn(batch, 3, cells, cells, generator=generator)
        photo = photo + functional.interpolate(noise, size=(size, size), mode="bilinear")
    return photo * (0.3 + torch.rand(batch, 1, 1, 1, generator=generator))


def networks() -> dict[str, Network]:
    """Every network of the zoo by name, none of them built."""
    return {network.name: network for network in (*_vision(), *_timm())}


def _vision() -> Iterator[Network]:
    kinds = {
        "classification": vision,
        "segmentation": vision.segmentation,
        "detection": vision.detection,
        "video": vision.video,
    }
    for kind, module in kinds.items():
        for name in vision.list_models(module=module):
            size = _first_fit(VISION_SIZES, name, 224)
            frames = _first_fit(FRAMES, name, 8) if kind == "video" else 0
            make = partial(_make_vision, name, kind, size)
            yield Network(name, f"torchvision {kind}", make, size, frames, kind != "detection")


def _first_fit(table: Mapping[str, int], name: str, default: int) -> int:
    return next((number for pattern, number in table.items() if fnmatch(name, pattern)), default)


def _make_vision(name: str, kind: str, size: int) -> nn.Module:
    options: dict[str, Any] = {"weights": None}
    if kind in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if fnmatch(name, "vit_*"):
        options["image_size"] = size
    if kind == "detection" and not name.startswith("ssd"):
        options |= {"min_size": size, "max_size": size}
    model: nn.Module = vision.get_model(name, **options)
    return Detector(model) if kind == "detection" else model


def _timm() -> Iterator[Network]:
    import timm

    for name, size in TIMM.items():
        module = timm.model_entrypoint(name).__module__.removeprefix("timm.models.")
        yield Network(f"timm-{name}", f"timm {module}", partial(_make_timm, name, size), size)


def _make_timm(name: str, size: int) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, exportable=True, img_size=size)
    except TypeError:  # most convolutional networks take any size and no such option
        return timm.create_model(name, exportable=True)
