"""How many filters lie below a threshold, by the mean activation and by the sum over space.

    python tools/experiments/activation_scales.py \\
        ../shared/models/onnx/resnet56_cifar10.onnx --data ~/.cache/irprune/cifar10.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from irprune import api
from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.passbase import Context
from irprune.passes.rounds import kind_of
from irprune.passes.scores.activity import Activity
from irprune.passes.scores.calibration import Samples
from irprune.shapes import infer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help=".npz with x_train, uint8 NHWC")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--mean", type=float, nargs=3, default=[0.485, 0.456, 0.406])
    parser.add_argument("--std", type=float, nargs=3, default=[0.229, 0.224, 0.225])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0, 0.01, 0.1, 0.2, 1])
    options = parser.parse_args()
    images = np.load(options.data)["x_train"][: options.samples] / 255
    images = ((images - options.mean) / options.std).transpose(0, 3, 1, 2).astype(np.float32)
    model = api.run("normalize", api.load(options.model), verify=False).model
    infer(model.ir)
    channels = analyse(model.ir.graph)
    groups = coupled_groups(channels)
    samples = Samples({model.ir.graph.inputs[0].name or "": images}, None, 30)
    with OrtRunner() as runner:
        context = Context(runner=lambda: runner)
        for criterion in ("mean-activation", "sum-activation"):
            found = Activity(model, channels, groups, criterion, samples, context)
            for kind in ("conv", "dense"):
                mine = [found.of(group) for group in groups if kind_of(group) == kind]
                scores = np.concatenate([np.zeros(0), *(s for s in mine if s is not None)])
                below = {t: int((scores <= t).sum()) for t in options.thresholds}
                if len(scores):
                    middle = np.median(scores)
                    print(
                        f"{criterion}, {kind}: {len(scores)} filters, median {middle:.3f}, {below}"
                    )


if __name__ == "__main__":
    main()
