"""Export the zoo to ONNX: real networks of torchvision and timm, with weights that prove something.

    python tools/zoo_export.py --models 'resnet*' timm-levit_128s --variants 'dynamo-*'

Every network that ``tools/zoo_models.py`` lists is written once per variant as
``MODEL.VARIANT.onnx``. Weights are random but not degenerate (``tools/zoo_weights.py``). Each file
is run through onnxruntime and compared with torch before it appears. Existing files are left alone;
what happened to each file is in ``export.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from zoo_models import Detector, Network, networks
from zoo_weights import randomise

INSIDE_BYTES = 150e6  # a file whose weights are larger keeps them outside
EXTERNAL_TENSOR_BYTES = 1 << 20
TOLERANCE = 1e-3  # max|onnx - torch| / max|torch|
UNMATCHED = 0.2  # share of a detector's boxes that rounding may exchange
BATCH = 4  # calibration images
REASON = 200  # characters: a guard on data may list every box of a detector

Arrays = dict[str, np.ndarray]


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
    """What happened to one file: ``exported``, or ``failed`` with the reason."""

    model: str
    source: str
    variant: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    bytes: int = 0
    opset: int = 0
    error: float = 0.0  # max|onnx - torch| / max|torch|
    ops: dict[str, int] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"{self.model}.{self.variant}.onnx"


def build(network: Network, seed: int = 0) -> nn.Module:
    """Return the network, randomised, in eval mode; raises ValueError if degenerate."""
    torch.manual_seed(seed)
    model = network.build()
    randomise(model, network.inputs(BATCH, seed), seed)
    with torch.inference_mode():
        outputs = named_outputs(model(network.inputs(BATCH, seed + 1)))
    for name, output in outputs.items():
        if not output.numel():
            raise ValueError(f"degenerate network: nothing in output {name}")
        if network.dense:
            spread, varied = float(output.std()), float(output.std(0).mean())
            if not (0.1 < spread < 1e6 and varied > 0.02 * spread):
                raise ValueError(f"degenerate output: std {spread:.3g}, across images {varied:.3g}")
    return model


def named_outputs(result: Any) -> dict[str, Tensor]:
    """A network's outputs by name: a lone tensor is ``output``, a dict keeps its own keys."""
    if isinstance(result, Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        return dict(result)
    return {f"output{k}": tensor for k, tensor in enumerate(result)}


def export(model: nn.Module, photos: Tensor, path: Path, variant: Variant) -> None:
    """Write `model` as ONNX; the input is ``input`` (N, 3, ...), N fixed by `photos` or free.

    A detector takes one photo: height and width are free instead.
    """
    with torch.inference_mode():
        names = list(named_outputs(model(photos)))
    free = {2: "height", 3: "width"} if isinstance(model, Detector) else {0: "batch"}
    options: dict[str, Any] = {"input_names": ["input"], "output_names": names, "verbose": False}
    if variant.dynamo:
        options |= {"optimize": variant.optimize}
        options |= {"external_data": weight_bytes(model) > INSIDE_BYTES}
        if variant.dynamic:
            options |= {"dynamic_shapes": (free,)}
    elif variant.dynamic:
        tied = [] if isinstance(model, Detector) else names
        options |= {"dynamic_axes": dict.fromkeys(["input", *tied], free)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters announce their own deprecations
        # TorchScript writes more than 2 GiB only where the path is a string.
        torch.onnx.export(model, (photos,), str(path), dynamo=variant.dynamo, **options)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the parameters of a network."""
    return sum(parameter.nbytes for parameter in model.parameters())


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


def run_both(model: nn.Module, photos: Tensor, path: Path) -> tuple[Arrays, Arrays]:
    """Return what torch and what onnxruntime make of the photos, by output name."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = {name: tensor.numpy() for name, tensor in named_outputs(model(photos)).items()}
    actual = session.run(list(expected), {"input": photos.numpy()})
    return expected, dict(zip(expected, actual, strict=True))


def relative_error(expected: Arrays, actual: Arrays) -> float:
    """Return max|actual - expected| / max|expected|, the largest of all outputs."""
    return max(
        float(np.abs(actual[name] - array).max() / np.abs(array).max())
        for name, array in expected.items()
    )


def unmatched(expected: Arrays, actual: Arrays) -> float:
    """Return the share of the detections in `expected` that have no equal in `actual`.

    Rounding alone can tip which of two overlapping boxes is suppressed, so lists may differ.
    """
    size = np.abs(expected["boxes"]).max()
    far = np.abs(expected["boxes"][:, None] - actual["boxes"]).max(-1) > 0.01 * size
    far |= np.abs(expected["scores"][:, None] - actual["scores"]) > 0.01
    far |= expected["labels"][:, None] != actual["labels"]
    return float(far.all(1).mean())


def export_file(model: nn.Module, network: Network, record: Record, out: Path, seed: int) -> None:
    """Export one variant into `out`, check it and fill in `record`; raises what went wrong."""
    variant = VARIANTS[record.variant]
    photos = network.inputs(2 if variant.dynamic and network.dense else 1, seed + 2)
    final = out / record.file
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as scratch:
        path = Path(scratch) / record.file
        export(model, photos, path, variant)
        proto = onnx.load(path)
        if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > INSIDE_BYTES:
            record.bytes += move_weights_out(proto, out / "weights" / record.model, out)
        partial = final.with_suffix(".part")
        onnx.save(proto, partial)
    try:
        expected, actual = run_both(model, photos, partial)
        if network.dense:
            record.error = relative_error(expected, actual)
            if not record.error <= TOLERANCE:
                raise ValueError(f"onnxruntime and torch differ: relative error {record.error:.2g}")
        else:
            lost = unmatched(expected, actual)
            if not lost <= UNMATCHED:
                raise ValueError(f"onnxruntime lacks {lost:.0%} of what torch finds")
        record.bytes += partial.stat().st_size
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    record.opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    record.ops = dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))


def export_model(network: Network, variants: Iterable[str], out: Path, seed: int) -> list[Record]:
    """Export the missing `variants` of a network into `out`."""
    records: list[Record] = []
    model: nn.Module | None = None
    for variant in variants:
        record = Record(network.name, network.source, variant, "exported")
        records.append(record)
        start = time.perf_counter()
        try:
            model = model or build(network, seed)
            export_file(model, network, record, out, seed)
        except Exception as error:  # exporters raise every kind; the record carries it
            record.status, record.reason = "failed", reason_of(error)
        record.seconds = round(time.perf_counter() - start, 2)
    return records


def reason_of(error: BaseException) -> str:
    """The first line that says something of the innermost cause of an error, cut where too long."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= REASON else f"{text[: REASON - 3]}..."


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    zoo = networks()
    variants = matching(VARIANTS, args.variants)
    failed = False
    for name in matching(zoo, args.models):
        missing = [v for v in variants if not (args.out / f"{name}.{v}.onnx").exists()]
        records = export_model(zoo[name], missing, args.out, args.seed)
        write_report(args.out, records)
        for record in records:
            failed |= record.status == "failed"
            print(
                f"{record.file:50} {record.status:8} {record.seconds:7.1f} s"
                f" {record.bytes / 1e6:8.1f} MB  error {record.error:.1e}"
                f"  {record.reason}".rstrip(),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
