"""One adapter per pruner: prune a network to an ONNX file and judge it against its masked self."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch
import torch_pruning
import zoo_export
from numpy.typing import NDArray
from rivals_masked import Underivable, masked_onnx, masked_torch, weight_elements
from torch import Tensor, nn

from irprune import api
from irprune.errors import CheckFailed, IrpruneError
from irprune.protocols import Runner, RunnerError

RATIO = 0.5
SELECT = f"prune{{ratio={RATIO} scope=local criterion=l1 members=producers}}, compact"
TOLERANCE = 1e-4  # max|pruned - masked| / max|masked|


@dataclass(frozen=True)
class Network:
    """One network as torch module and as ONNX file, of the same weights."""

    name: str
    module: nn.Module
    file: Path
    example: Tensor

    @property
    def feeds(self) -> dict[str, NDArray[np.float32]]:
        """The example as the ONNX file's input."""
        return {"input": self.example.numpy()}

    def classifiers(self) -> list[nn.Module]:
        """The layer that makes the classes: the last Linear, or the last convolution."""
        layers = list(self.module.modules())
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        return [(linear or convolutions)[-1]]


@dataclass(frozen=True)
class Outcome:
    """What a pruner made of a network.

    `status` is ``ok`` (runs and equals the masked original), ``wrong`` (runs, differs), ``unknown``
    (runs, but what was kept cannot be told), ``invalid`` (does not run), ``crash`` (the tool
    raised an error that it did not mean to) or ``refused`` (it said why it would not).
    """

    status: str
    removed: float | None = None
    """Share of the weight elements of contractions that are gone."""
    error: float | None = None
    """max|pruned - masked original| / max|masked original|."""
    detail: str = ""


def ours(network: Network, folder: Path, runner: Runner) -> Outcome:
    """irprune, judged by its own proof and by onnxruntime."""
    try:
        result = api.run(f"normalize, {SELECT}", api.load(network.file), verify=True)
    except CheckFailed as failure:
        return Outcome("wrong", detail=str(failure))
    except IrpruneError as refusal:
        return Outcome("refused", detail=str(refusal))
    path = folder / "irprune.onnx"
    result.model.save(path)
    error = max(link["max_error"] for link in result.report["proof"])
    verdict = ", ".join(sorted({link["verdict"] for link in result.report["proof"]}))
    removed = share_removed(network.file, path)
    try:
        runner.run(path, network.feeds)
    except RunnerError as failure:
        return Outcome("invalid", removed, detail=str(failure))
    return Outcome("ok" if verdict == "proved" else "unknown", removed, error, verdict)


def torch_pruner(module: nn.Module, network: Network) -> None:
    """Torch-Pruning's whole work on `module`, a copy of the network: analyse, rank, remove."""
    layers = dict(zip(network.module.modules(), module.modules(), strict=True))
    torch_pruning.pruner.BasePruner(
        module, network.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=False, pruning_ratio=RATIO,
        ignored_layers=[layers[layer] for layer in network.classifiers()],
    ).step()  # fmt: skip


def torch_pruning_tool(network: Network, folder: Path, runner: Runner) -> Outcome:
    """Torch-Pruning on the torch module, then exported."""
    module = copy.deepcopy(network.module)
    try:
        torch_pruner(module, network)
    except Exception as error:  # whatever the tool raises is its result
        return Outcome("crash", detail=_line(error))
    path = folder / "torch_pruning.onnx"
    try:
        with torch.inference_mode():
            module(network.example)
        variant = zoo_export.VARIANTS["torchscript-static"]
        zoo_export.export(module, network.example, path, variant)
        actual = runner.run(path, network.feeds)
    except Exception as error:  # torch, its exporter or onnxruntime: the network does not run
        return Outcome("invalid", detail=_line(error))
    removed = share_removed(network.file, path)
    try:
        masked = masked_torch(network.module, module)
    except Underivable as reason:
        return Outcome("unknown", removed, detail=str(reason))
    with torch.inference_mode():
        expected = zoo_export.named_outputs(masked(network.example))
    return _judged(removed, actual, {name: t.numpy() for name, t in expected.items()})


def onnxsim_tool(network: Network, folder: Path, runner: Runner) -> Outcome:
    """onnxsim's structured pruning on the ONNX file."""
    original = onnx.load(network.file)
    try:
        pruned = onnxsim.apply_structured_pruning(original, RATIO, importance_norm="l1")
    except Exception as error:  # whatever the tool raises is its result
        return Outcome("crash", detail=_line(error))
    path = folder / "onnxsim.onnx"
    onnx.save(pruned, path)
    removed = share_removed(network.file, path)
    try:
        actual = runner.run(path, network.feeds)
    except RunnerError as error:
        return Outcome("invalid", removed, detail=_line(error))
    try:
        masked = masked_onnx(onnx.load(network.file), pruned)
    except Underivable as reason:
        return Outcome("unknown", removed, detail=str(reason))
    reference = folder / "masked.onnx"
    onnx.save(masked, reference)
    return _judged(removed, actual, runner.run(reference, network.feeds))


TOOLS = {"irprune": ours, "Torch-Pruning": torch_pruning_tool, "onnxsim": onnxsim_tool}


def judge(network: Network, folder: Path, runner: Runner) -> dict[str, Outcome]:
    """What every tool makes of a network; files go to `folder` and are overwritten."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: tool(network, folder, runner) for name, tool in TOOLS.items()}


def share_removed(original: Path, pruned: Path) -> float:
    """Share of the contractions' weight elements that the pruned file lacks."""
    before, after = (
        weight_elements(onnx.load(path, load_external_data=False)) for path in (original, pruned)
    )
    return 1 - after / before


def _judged(removed: float, actual: dict[str, Any], expected: dict[str, Any]) -> Outcome:
    if any(actual[name].shape != expected[name].shape for name in expected):
        return Outcome("wrong", removed, detail="outputs have other shapes")
    error = _largest(
        np.abs(actual[name] - expected[name]).max() / np.abs(expected[name]).max()
        for name in expected
    )
    return Outcome("ok" if error <= TOLERANCE else "wrong", removed, error)


def _largest(errors: Iterable[float]) -> float:
    """The largest error; NaN where one is, which is within no tolerance."""
    return float(np.max(list(errors)))


def _line(error: Exception) -> str:
    """Type and first line of an error, without the name of a scratch file."""
    text = error.reason if isinstance(error, IrpruneError) else str(error)
    first, *_ = text.strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}"[:200]
