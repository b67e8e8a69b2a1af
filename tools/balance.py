"""Importance kept by balanced removal beside tied removal, on networks with groups and heads.

    python tools/balance.py resnext50_32x4d regnet_y_400mf shufflenet_v2_x1_0 vit_b_16

Every network is exported from torchvision (weights random, see tools/zoo_export.py), or is a file
given by its path, and pruned twice by `normalize, prune{PIPELINE}, compact` with its proof: with
the same number of channels per group and head, whichever they are, and with `tie`: the same indices
in all of them. Both lose equally many parameters; the share of the squared weights that stays says
how much of what the criterion calls important each of them keeps. Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from randomize import randomize

from irprune import api
from irprune.channels import Channels, analyse
from irprune.passbase import Context
from irprune.passes.normalize import Normalize

HEADER = f"{'model':<36}{'balanced':>10}{'tied':>10}{'lost less':>11}   in groups: balanced, tied"


def exported(name: str, folder: Path) -> Path:
    """Return the file of a torchvision network, made by tools/zoo_export.py; a path as it is."""
    if Path(name).exists():
        return Path(name)
    tool = Path(__file__).with_name("zoo_export.py")
    choice = ["--models", name, "--variants", "dynamo-static", "--out", str(folder)]
    subprocess.run([sys.executable, str(tool), *choice], check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.glob(f"{name}.*.onnx")
    return file


def grouped(channels: Channels) -> set[str]:
    """Return the weights whose classes belong to rows that lose equally many of them."""
    found = np.zeros(channels.count, np.bool_)
    for cells in channels.walk.cells:
        found[channels.roots[cells]] = True
    sites = (*channels.producers, *channels.consumers)
    return {site.value.name or "" for site in sites if found[site.classes].any()}


def energies(model: api.Model) -> dict[str, float]:
    """Return the sum of the squares of each weight of two axes or more."""
    weights = model.ir.graph.initializers.items()
    arrays: dict[str, NDArray[np.generic]] = {
        name: value.const_value.numpy()
        for name, value in weights
        if value.const_value is not None and len(value.const_value.shape) > 1
    }
    return {
        name: float(np.square(array, dtype=np.float64).sum())
        for name, array in arrays.items()
        if array.dtype.kind == "f"
    }


def measure(path: Path, options: str) -> tuple[list[float], list[float]]:
    """Return the shares kept by balanced and tied removal: of all weights, of the grouped ones."""
    model = api.load(path)
    randomize(model)
    base = model.clone()
    Normalize().run(base, Context())
    before, names = energies(base), grouped(analyse(base.ir.graph))
    shares: tuple[list[float], list[float]] = ([], [])
    for tie in ("false", "true"):
        pipeline = f"normalize, prune{{{options} tie={tie}}}, compact"
        after = energies(api.run(pipeline, model.clone()).model)
        for share, chosen in zip(shares, (set(before), names & set(before)), strict=True):
            kept = sum(after.get(name, 0.0) for name in chosen)
            share.append(kept / max(sum(before[name] for name in chosen), 1e-30))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="torchvision names or ONNX files")
    parser.add_argument("--options", default="ratio=0.5 scope=local criterion=l2", help="of prune")
    arguments = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            everything, inside = measure(exported(name, Path(folder)), arguments.options)
            less = 1 - (1 - everything[0]) / (1 - everything[1])
            print(
                f"{Path(name).stem:<36}{everything[0]:>10.4f}{everything[1]:>10.4f}{less:>11.1%}"
                f"   {inside[0]:.4f}, {inside[1]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
