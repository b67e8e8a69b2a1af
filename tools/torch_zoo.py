"""PyTorch networks through `from_torch`, pruned, proved, and shrunk in place.

    python tools/torch_zoo.py --models resnet18 swin_t timm-vit_tiny_patch16_224
    python tools/torch_zoo.py --trained --images 10000

For each network of torchvision (or timm, with the prefix ``timm-``), with random but not degenerate
weights: the graph's outputs against eager PyTorch, every state_dict name an initializer of its
shape, ``prune{ratio=0.4}`` proved, and `apply_to_module` against the compacted graph. Attention
written by hand cannot be narrowed in place: where it is refused, the network is pruned again with
the layers that the message names left whole, and `skipped` says so. ``--trained`` measures the
shared CIFAR-10 state_dicts: in eager PyTorch, after `from_torch`, and after a run that removes
nothing and `export_state_dict`. Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from zoo_models import SHARED, networks
from zoo_weights import randomise

import irprune
from irprune import IrpruneError

_MODELS = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3
    maxvit_t mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18
    resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn
    vit_b_16 timm-vit_tiny_patch16_224 timm-convnext_atto timm-mixer_s32_224
"""
MODELS = _MODELS.split()
PRUNE = "normalize, prune{{ratio=0.4 scope=local{skip}}}, compact"
SKIPPED = ' skip="*attn*"'
BOUND = 1e-4


def session(model: irprune.Model) -> onnxruntime.InferenceSession:
    """Return a session of a model, without the optimisations that change its numbers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(runner: onnxruntime.InferenceSession, x: Tensor) -> np.ndarray:
    """Return the first output."""
    return np.asarray(runner.run(None, {runner.get_inputs()[0].name: x.numpy()})[0])


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return max|a - b| / max|b|."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def eager(module: nn.Module, x: Tensor) -> np.ndarray:
    """Return the first output in eval mode."""
    with torch.inference_mode():
        result = module.eval()(x)
    return (result if isinstance(result, Tensor) else next(iter(result))).numpy()


def names_kept(module: nn.Module, model: irprune.Model) -> bool:
    """Whether every name of the state_dict is an initializer of its shape."""
    found = model.ir.graph.initializers
    return all(
        name in found and tuple(found[name].shape or ()) == tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
    )


def shrunk(
    module: nn.Module, model: irprune.Model, x: Tensor, prove: bool
) -> tuple[irprune.api.Result, nn.Module, str]:
    """Return the run, the shrunk copy of the module, and what was left whole."""
    skip = ""
    while True:
        result = irprune.run(PRUNE.format(skip=skip), model, verify=prove)
        small = copy.deepcopy(module)
        try:
            return result, irprune.apply_to_module(small, result.plan, (x,)), skip
        except IrpruneError as error:
            if skip or "its forward does not fit" not in str(error):
                raise
            skip = SKIPPED


def check(name: str, size: int, prove: bool) -> dict[str, Any]:
    """Return what was measured of one network."""
    network = networks()[name]
    torch.manual_seed(0)
    module = network.build().eval()
    full = network.inputs(2, 1)
    x = full if size == 0 else nn.functional.interpolate(full, size=(size, size))
    randomise(module, x, 0)
    start = time.perf_counter()
    model = irprune.from_torch(module, (x,))
    row: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1)}
    row["names"] = names_kept(module, model)
    row["error"] = distance(run(session(model), x), eager(module, x))
    result, small, skip = shrunk(module, model, x, prove)
    row["params"] = result.report["after"]["params"] / result.report["before"]["params"]
    row["module"] = distance(eager(small, x), run(session(result.model), x))
    state = irprune.export_state_dict(result)
    row["state"] = all(torch.equal(state[k], v) for k, v in small.state_dict().items())
    row["skipped"] = skip.strip()
    good = row["names"] and row["state"] and max(row["error"], row["module"]) <= BOUND
    return {"ok": bool(good), "proved": prove, **row}


def trained(name: str, count: int, data: Path) -> dict[str, Any]:
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
    graphs = {"from_torch": session(model), "normalised": session(result.model)}

    def accuracy(logits: list[np.ndarray]) -> float:
        return float((np.concatenate(logits).argmax(1) == labels).mean())

    parts = [torch.from_numpy(part) for part in batches(images)]
    row = {"eager": accuracy([eager(module, part) for part in parts])}
    row |= {key: accuracy([run(s, part) for part in parts]) for key, s in graphs.items()}
    row["state_dict"] = accuracy([eager(back, part) for part in parts])
    return {"ok": len(set(row.values())) == 1, "images": count, **row}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every network of tools/zoo_models.py")
    parser.add_argument("--size", type=int, default=0, help="image size instead of the network's")
    parser.add_argument("--no-proof", action="store_true")
    parser.add_argument("--trained", action="store_true", help="measure the CIFAR-10 ResNets only")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache" / "irprune")
    options = parser.parse_args()
    failed = False
    names = ["resnet20", "resnet56"] if options.trained else options.models
    if options.all:
        names = [name for name, network in networks().items() if network.dense]
    for name in names:
        try:
            if options.trained:
                row = trained(name, options.images, options.data)
            else:
                row = check(name, options.size, not options.no_proof)
        except Exception as error:  # one network that fails does not end the list
            traceback.print_exc(file=sys.stderr)
            row = {"ok": False, "reason": f"{type(error).__name__}: {error}"}
        failed |= not row["ok"]
        print(json.dumps({"model": name, **row}), flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
