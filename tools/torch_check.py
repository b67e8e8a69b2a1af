"""What `torch_zoo` checks of one PyTorch network: taken in, pruned, proved, shrunk in place.

As a command it prints the row of one network as JSON:

    python tools/torch_check.py resnet18
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo_models import SHARED, Network, networks
from zoo_weights import randomise

import irprune
from irprune import IrpruneError
from irprune.errors import CheckFailed

PRUNE = "normalize, prune{ratio=0.4 scope=local}, compact"
INEXACT = "normalize, prune{ratio=0.4 scope=local allow=inexact}, compact"
BOUND = 1e-4

SIZES = {
    "inception_v3": 0,
    "efficientnet_*": 128,
    "shufflenet_*": 128,
    "swin_v2_*": 128,
    "swin_*": 112,
    "maxvit_t": 224,
    "vit_*": 0,
}
"""Heights and widths of torchvision's photos here (0: as in `zoo_models`), 64 where no name fits:
what is checked does not depend on the size, which the network's own makes slower by ten.
Networks that would end in maps of a few positions have larger ones: statistics that BatchNorm
takes over so few numbers may be near 0, and then magnify rounding."""


@dataclass
class Row:
    """What one network gave."""

    model: str
    source: str = ""
    verdict: str = ""
    """proved, not proved, refused (by a message), crashed, or not exported."""
    reason: str = ""
    parameters: int = 0
    names: bool = False
    """Every name of the state_dict is an initializer of its shape."""
    error: float | None = None
    """Largest relative error of the exported graph's outputs against eager PyTorch."""
    double: float | None = None
    """The same in float64, through `to_torch`, where eager PyTorch's own rounding is too large."""
    inexact: bool = False
    """Every channel passes statistics over channels: pruned with ``allow=inexact``."""
    params: float | None = None
    """Share of the parameters kept."""
    module: float | None = None
    """Largest relative error of the module shrunk in place against the compacted graph."""
    unfit: str = ""
    """Why the module cannot shrink in place, or its state_dict not be told."""
    state: bool = False
    """`export_state_dict` equals the state_dict of the module shrunk in place."""
    seconds: float = 0.0

    @property
    def taken(self) -> bool:
        """Whether the graph computes what the module does, and its pruning is proved."""
        close = _below(self.error, BOUND) or _below(self.double, BOUND)
        return self.verdict == "proved" and self.names and close

    @property
    def ok(self) -> bool:
        """Whether all that is required holds; what cannot be exported has nothing to check."""
        return self.taken and (bool(self.unfit) or (self.state and _below(self.module, BOUND)))


def _below(error: float | None, bound: float) -> bool:
    return error is not None and error <= bound


def session(model: irprune.Model) -> onnxruntime.InferenceSession:
    """Return a session of a model, without the optimisations that change its numbers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(runner: onnxruntime.InferenceSession, x: Tensor) -> list[np.ndarray]:
    """Return the outputs."""
    return [np.asarray(y) for y in runner.run(None, {runner.get_inputs()[0].name: x.numpy()})]


def eager(module: nn.Module, x: Tensor) -> list[np.ndarray]:
    """Return the outputs in eval mode."""
    with torch.inference_mode():
        result = module.eval()(x)
    return [leaf.numpy() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def distance(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest max|a - b| / max|b| of the outputs."""
    pairs = zip(actual, expected, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def names_kept(module: nn.Module, model: irprune.Model) -> bool:
    """Whether every name of the state_dict is an initializer of its shape."""
    found = model.ir.graph.initializers
    return all(
        name in found and tuple(found[name].shape or ()) == tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
    )


def pruned(model: irprune.Model, row: Row) -> irprune.api.Result:
    """Return the run; where exact pruning has no channel to remove, that of inexact pruning."""
    try:
        return irprune.run(PRUNE, model)
    except IrpruneError as error:
        if not str(error).startswith("no channel can be pruned"):
            raise
    row.inexact = True
    return irprune.run(INEXACT, model)


def shrunk(module: nn.Module, plan: irprune.Plan, x: Tensor, row: Row) -> nn.Module | None:
    """Return a copy of the module, shrunk; None where its forward does not allow that."""
    try:
        return irprune.apply_to_module(copy.deepcopy(module), plan, (x,))
    except IrpruneError as error:
        row.unfit = str(error)
        return None


def in_double(module: nn.Module, model: irprune.Model, x: Tensor) -> float:
    """Return the distance of the graph from the module, both computed in float64."""
    graph = irprune.to_torch(irprune.run("normalize", model, verify=False).model)
    expected = eager(copy.deepcopy(module).double(), x.double())
    return distance(eager(graph.double(), x.double()), expected)


def check(network: Network) -> Row:
    """Return what was measured of one network."""
    row = Row(network.name, network.source)
    start = time.perf_counter()
    try:
        _check(network, row)
        row.verdict = "proved"
    except CheckFailed as error:
        row.verdict, row.reason = "not proved", str(error)
    except IrpruneError as error:
        unfit = ("torch.export cannot", "torch.onnx cannot")
        row.verdict = "not exported" if str(error).startswith(unfit) else "refused"
        row.reason = str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        row.verdict, row.reason = "crashed", f"{type(error).__name__}: {error}"
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def _check(network: Network, row: Row) -> None:
    torch.manual_seed(0)
    module = network.build()
    row.parameters = sum(parameter.numel() for parameter in module.parameters())
    x = network.inputs(2, 1)
    size = next((n for name, n in SIZES.items() if fnmatch(network.name, name)), 64)
    if size and network.source.startswith("torchvision") and not network.frames:
        x = nn.functional.interpolate(x, size=(size, size))
    randomise(module, x, 0)
    model = irprune.from_torch(module, (x,))
    row.names = names_kept(module, model)
    row.error = distance(run(session(model), x), eager(module, x))
    if row.error > BOUND:
        row.double = in_double(module, model, x)
    result = pruned(model, row)
    small = shrunk(module, result.plan, x, row)
    row.params = result.report["after"]["params"] / result.report["before"]["params"]
    if small is None:
        return
    row.module = distance(eager(small, x), run(session(result.model), x))
    try:
        state = irprune.export_state_dict(result)
    except IrpruneError as error:
        row.unfit = str(error)
        return
    row.state = all(torch.equal(state[k], v) for k, v in small.state_dict().items())


def trained(name: str, count: int, data: Path) -> dict[str, float]:
    """Return the accuracies of a shared state_dict on its way to ONNX and back."""
    from accuracy import batches, test_images
    from cifar_resnet import load_resnet

    data.mkdir(parents=True, exist_ok=True)
    images, labels = test_images(count, data)
    module = load_resnet(name, SHARED)
    model = irprune.from_torch(module, (torch.from_numpy(images[:2]),))
    result = irprune.run("normalize", model)
    back = load_resnet(name, SHARED)
    for parameter in back.parameters():
        nn.init.zeros_(parameter)
    back.load_state_dict(irprune.export_state_dict(result))
    parts = [torch.from_numpy(part) for part in batches(images)]

    def accuracy(logits: list[list[np.ndarray]]) -> float:
        return float((np.concatenate([part[0] for part in logits]).argmax(1) == labels).mean())

    row = {"eager": accuracy([eager(module, part) for part in parts])}
    for key, graph in {"from_torch": model, "normalize": result.model}.items():
        runner = session(graph)
        row[key] = accuracy([run(runner, part) for part in parts])
    row["export_state_dict"] = accuracy([eager(back, part) for part in parts])
    return row


if __name__ == "__main__":
    found = check(networks()[sys.argv[1]])
    print(json.dumps(asdict(found)))
    raise SystemExit(not found.ok)
