"""Export torchvision's convolutional networks to ONNX, with weights that prove something.

    python tools/zoo_export.py --models 'resnet*' mobilenet_v2 --variants 'dynamo-*'

Every classification and segmentation network of torchvision without attention and LayerNorm is
written once per variant as ``MODEL.VARIANT.onnx``. Weights are random but not degenerate: layer
outputs have unit variance, BatchNorm scales, shifts and statistics differ from channel to channel
and fit the activations they meet. Each file is run through onnxruntime and compared with torch
before it appears. Existing files are left alone; what happened to each file is in ``export.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
if (SHARED / "torchvision_cpu.py").exists():
    sys.path.insert(0, str(SHARED))
    import torchvision_cpu  # noqa: F401

from torchvision import models as zoo  # noqa: E402
from torchvision.models import efficientnet, mnasnet, mobilenetv2, mobilenetv3, regnet, resnet  # noqa: E402  # noqa: E402

ATTENTION = ("vit_*", "swin_*", "maxvit_*", "convnext_*")  # attention or LayerNorm: left out
SMALL_BYTES = 150e6  # --small leaves out what is larger; larger files keep their weights outside
EXTERNAL_TENSOR_BYTES = 1 << 20
TOLERANCE = 1e-3  # max|onnx - torch| / max|torch|
RESIDUAL_BLOCKS = (
    resnet.BasicBlock,
    resnet.Bottleneck,
    regnet.ResBottleneckBlock,
    mobilenetv2.InvertedResidual,
    mobilenetv3.InvertedResidual,
    mnasnet._InvertedResidual,
    efficientnet.MBConv,
    efficientnet.FusedMBConv,
)
BATCH = 4  # calibration images
BRANCH_GAIN = 0.3  # how far a residual branch's last BatchNorm is damped


@dataclass(frozen=True)
class Variant:
    """How a network is exported."""

    dynamo: bool
    dynamic: bool
    optimize: bool = True  # False keeps BatchNorm and the state_dict names (dynamo only)


DEFAULT_VARIANTS = {
    "dynamo-static": Variant(dynamo=True, dynamic=False),
    "dynamo-dynamic": Variant(dynamo=True, dynamic=True),
    "torchscript-static": Variant(dynamo=False, dynamic=False),
    "torchscript-dynamic": Variant(dynamo=False, dynamic=True),
}
VARIANTS = DEFAULT_VARIANTS | {
    "dynamo-unfused-static": Variant(dynamo=True, dynamic=False, optimize=False),
    "dynamo-unfused-dynamic": Variant(dynamo=True, dynamic=True, optimize=False),
}


@dataclass
class Record:
    """What happened to one file: ``exported``, ``failed`` or ``skipped`` (with the reason)."""

    model: str
    variant: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    bytes: int = 0
    opset: int = 0
    error: float = 0.0  # max|onnx - torch| / max|torch|
    output_std: float = 0.0
    ops: dict[str, int] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"{self.model}.{self.variant}.onnx"


def model_bytes(name: str) -> int:
    """Bytes of the float32 parameters of torchvision's network `name`, without building it."""
    weights = next(iter(zoo.get_model_weights(name)))
    return 4 * int(weights.meta["num_params"])


def convolutional_models() -> list[str]:
    """Names of all convolutional classification and segmentation networks, smallest first."""
    names = zoo.list_models(module=zoo) + zoo.list_models(module=zoo.segmentation)
    kept = [name for name in names if not any(fnmatch(name, rule) for rule in ATTENTION)]
    return sorted(kept, key=model_bytes)


def images(name: str, batch: int, seed: int) -> Tensor:
    """Random smooth "photos", float32 (N, 3, H, W), H = W = 299 for Inception and 224 otherwise.

    Noise at several scales with a brightness, contrast and tint of its own per image: global
    pooling of white noise would give every image the same features.
    """
    size = 299 if name == "inception_v3" else 224
    generator = torch.Generator().manual_seed(seed)
    photo = torch.randn(batch, 3, 1, 1, generator=generator).repeat(1, 1, size, size)
    for cells in (3, 12, 48):
        noise = torch.randn(batch, 3, cells, cells, generator=generator)
        photo = photo + functional.interpolate(noise, size=(size, size), mode="bilinear")
    return photo * (0.3 + torch.rand(batch, 1, 1, 1, generator=generator))


def _unit_variance(layer: nn.Module, _: object, output: Tensor) -> Tensor:
    """Forward hook: rescale a layer so that its output has unit variance on this batch."""
    scale = 1 / float(output.std())
    for parameter in layer.parameters():
        parameter.mul_(scale)
    return output * scale


def branch_ends(model: nn.Module) -> list[_BatchNorm]:
    """The last BatchNorm of every residual branch, projection shortcuts aside."""
    ends = []
    for block in model.modules():
        adds = getattr(block, "use_res_connect", getattr(block, "apply_residual", True))
        if isinstance(block, RESIDUAL_BLOCKS) and adds:
            branch = [m for name, m in block.named_modules() if not name.startswith("downsample")]
            ends.append([m for m in branch if isinstance(m, _BatchNorm)][-1])
    return ends


@torch.no_grad()
def randomise(model: nn.Module, photos: Tensor, seed: int) -> None:
    """Give `model` random weights and BatchNorm statistics that keep activations in range.

    One forward pass over `photos` (N, 3, H, W) rescales every layer to unit output variance and
    sets the running statistics to those of the batch; these are then perturbed. Residual branches
    are damped: undamped, deep random networks magnify rounding errors a thousandfold and more.
    """
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        if layer.bias is not None:
            layer.bias.normal_(0, 0.1, generator=generator)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.3, generator=generator)
        norm.train()
        norm.momentum = 1.0
    for norm in branch_ends(model):
        norm.weight.mul_(BRANCH_GAIN)
    hooks = [layer.register_forward_hook(_unit_variance) for layer in layers]
    model(photos)
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise ValueError("a BatchNorm without running statistics")
        var.clamp_(min=0.1 * float(var.mean()))
        mean.add_(0.1 * var.sqrt() * torch.randn(mean.shape, generator=generator))
        var.mul_(torch.empty_like(var).uniform_(0.8, 1.25, generator=generator))


def build(name: str, seed: int = 0) -> nn.Module:
    """Torchvision's network `name`, randomised, in eval mode; raises ValueError if degenerate."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"weights": None}
    if name in zoo.list_models(module=zoo.segmentation):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    model: nn.Module = zoo.get_model(name, **options)
    randomise(model, images(name, BATCH, seed), seed)
    with torch.inference_mode():
        for output in named_outputs(model(images(name, BATCH, seed + 1))).values():
            spread, varied = float(output.std()), float(output.std(0).mean())
            if not (0.1 < spread < 30 and varied > 0.02 * spread):
                raise ValueError(f"degenerate output: std {spread:.3g}, across images {varied:.3g}")
    return model


def named_outputs(result: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's outputs by name: a lone tensor is ``output``, a dict keeps its own keys."""
    return {"output": result} if isinstance(result, Tensor) else dict(result)


def export(model: nn.Module, photos: Tensor, path: Path, variant: Variant) -> None:
    """Write `model` as ONNX; the input is ``input`` (N, 3, H, W), N fixed by `photos` or free."""
    with torch.inference_mode():
        names = list(named_outputs(model(photos)))
    options: dict[str, Any] = {"input_names": ["input"], "output_names": names, "verbose": False}
    if variant.dynamo:
        options |= {"optimize": variant.optimize}
        options |= {"external_data": sum(p.nbytes for p in model.parameters()) > SMALL_BYTES}
        if variant.dynamic:
            options |= {"dynamic_shapes": ({0: "batch"},)}
    elif variant.dynamic:
        options |= {"dynamic_axes": {name: {0: "batch"} for name in ["input", *names]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters announce their own deprecations
        torch.onnx.export(model, (photos,), path, dynamo=variant.dynamo, **options)


def move_weights_out(proto: onnx.ModelProto, folder: Path, root: Path) -> int:
    """Move the large initializers of `proto` into `folder`, a file per content; return bytes added.

    Files are named by their SHA-256, so variants of one network share what is equal in them.
    Locations are relative to `root`, where the model file itself will lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    added = 0
    for tensor in proto.graph.initializer:
        data = tensor.raw_data
        if len(data) < EXTERNAL_TENSOR_BYTES:
            continue
        target = folder / f"{hashlib.sha256(data).hexdigest()}.bin"
        if not target.exists():
            partial = target.with_suffix(".part")
            partial.write_bytes(data)
            partial.replace(target)
            added += len(data)
        location = str(target.relative_to(root))
        onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(data))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
    return added


def relative_error(model: nn.Module, photos: Tensor, path: Path) -> float:
    """Run the file in onnxruntime and in torch: max|onnx - torch| / max|torch| over outputs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = named_outputs(model(photos))
    actual = session.run(list(expected), {"input": photos.numpy()})
    pairs = zip(actual, (tensor.numpy() for tensor in expected.values()), strict=True)
    return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in pairs)


def export_file(model: nn.Module, record: Record, out: Path, seed: int) -> None:
    """Export one variant into `out`, check it and fill in `record`; raises what went wrong."""
    variant = VARIANTS[record.variant]
    photos = images(record.model, 2 if variant.dynamic else 1, seed + 2)
    final = out / record.file
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as scratch:
        path = Path(scratch) / record.file
        export(model, photos, path, variant)
        proto = onnx.load(path)
        if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > SMALL_BYTES:
            record.bytes += move_weights_out(proto, out / "weights" / record.model, out)
        partial = final.with_suffix(".part")
        onnx.save(proto, partial)
    try:
        record.error = relative_error(model, photos, partial)
        if not record.error <= TOLERANCE:
            raise ValueError(f"onnxruntime and torch differ: relative error {record.error:.2g}")
        record.bytes += partial.stat().st_size
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    record.opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    record.ops = dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))
    with torch.inference_mode():
        outputs = named_outputs(model(photos)).values()
    record.output_std = max(float(output.std()) for output in outputs)


def zoo_bytes(out: Path) -> int:
    """Bytes of all finished model and weight files in `out`."""
    files = [*out.glob("*.onnx"), *out.glob("weights/*/*.bin")]
    return sum(path.stat().st_size for path in files)


def export_model(
    name: str, variants: Iterable[str], out: Path, *, seed: int, threads: int, budget: float
) -> list[Record]:
    """Export the missing `variants` of network `name` into `out`, never beyond `budget` bytes."""
    torch.set_num_threads(threads)
    records: list[Record] = []
    model: nn.Module | None = None
    for variant in variants:
        record = Record(name, variant, "exported")
        records.append(record)
        room = budget - zoo_bytes(out)
        if model_bytes(name) > room:
            record.status = "skipped"
            record.reason = f"{model_bytes(name) / 1e9:.2f} GB exceed the {room / 1e9:.2f} GB left"
            continue
        start = time.perf_counter()
        try:
            model = model or build(name, seed)
            export_file(model, record, out, seed)
        except Exception as error:  # exporters raise every kind; the record carries it
            record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
        record.seconds = round(time.perf_counter() - start, 2)
    return records


def write_report(out: Path, records: Iterable[Record]) -> None:
    """Merge `records` into ``export.json``, an object keyed by file name."""
    path = out / "export.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    report |= {record.file: asdict(record) for record in records}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match any of the patterns, in their order; a pattern must match something."""
    names, patterns = list(names), list(patterns)
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise SystemExit(f"no name matches {pattern!r}; there are: {' '.join(names)}")
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def arguments() -> argparse.Namespace:
    home = os.environ.get("IRPRUNE_ZOO", "~/.cache/irprune/zoo")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(home).expanduser(), metavar="DIR")
    parser.add_argument("--models", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument(
        "--variants", nargs="+", default=list(DEFAULT_VARIANTS), metavar="PATTERN",
        help=f"of {', '.join(VARIANTS)}; the unfused ones keep BatchNorm and are not the default",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="only networks below 150 MB")
    parser.add_argument("--budget", type=float, default=25.0, help="GB that DIR may hold")
    parser.add_argument("--jobs", type=int, default=1, help="networks exported at a time")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    names = matching(convolutional_models(), args.models)
    variants = matching(VARIANTS, args.variants)
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    spawn = multiprocessing.get_context("spawn")
    failed = False
    with ProcessPoolExecutor(args.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(
                export_model, name, missing, args.out,
                seed=args.seed, threads=threads, budget=args.budget * 1e9,
            )
            for name in names
            if not (args.small and model_bytes(name) > SMALL_BYTES)
            and (missing := [v for v in variants if not (args.out / f"{name}.{v}.onnx").exists()])
        ]  # fmt: skip
        for future in as_completed(futures):
            records = future.result()
            write_report(args.out, records)
            for record in records:
                failed |= record.status == "failed"
                print(
                    f"{record.file:50} {record.status:8} {record.seconds:7.1f} s"
                    f" {record.bytes / 1e6:8.1f} MB  error {record.error:.1e} "
                    f" std {record.output_std:5.2f}  {record.reason}".rstrip(),
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
