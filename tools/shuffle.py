"""What a channel shuffle could keep if its groups lost different channels.

    python tools/shuffle.py ../shared/models/onnx/light_shufflenet.onnx MODEL.onnx

For every shuffle (Reshape, Transpose, Reshape) whose channels convolutions make: the share of the
squared filters that stays when each of g groups keeps half of its n channels; `tied` the same
indices in all groups, `ordered` any for which what stays keeps its order after the shuffle (see
docs/decisions/balanced-removal.md), `free` any. Each shuffle by itself: what follows may tie more.
Constant weights get random numbers first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from randomize import randomize

from irprune import api
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.queries import constant_of, dims_of

RATIO = 0.5
PASSING = ("BatchNormalization", "Clip", "HardSwish", "LeakyRelu", "Relu")


def shuffles(graph: ir.Graph) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the scores, shape (groups, channels of each), of every shuffle."""
    for node in graph:
        split = (
            node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] else None
        )
        if split is None or split.op_type != "Reshape" or split.inputs[0] is None:
            continue
        before, after = dims_of(split.inputs[0]) or [], dims_of(split.outputs[0]) or []
        perm = node.attributes.get_ints("perm") or ()
        if len(before) == 4 and len(after) == 5 and tuple(perm) == (0, 2, 1, 3, 4):
            scores = made(split.inputs[0])
            if scores is not None:
                yield node.name or "", scores.reshape(after[1], after[2])


def made(value: ir.Value | None) -> np.ndarray | None:
    """Return the squared filter of each channel, None where no convolution makes some of them."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Conv":
        weight = constant_of(node.inputs[1])
        return None if weight is None else np.square(weight.reshape(len(weight), -1)).sum(1)
    if node.op_type == "Concat":
        parts = [part for v in node.inputs if (part := made(v)) is not None]
        return np.concatenate(parts) if len(parts) == len(node.inputs) else None
    return made(node.inputs[0]) if node.op_type in PASSING else None


def tied(scores: np.ndarray, keep: int) -> float:
    return float(np.sort(scores.sum(0))[-keep:].sum())


def free(scores: np.ndarray, keep: int) -> float:
    return float(np.sort(scores, axis=1)[:, -keep:].sum())


def ordered(scores: np.ndarray, keep: int) -> float:
    """Kept positions of the shuffled tensor belong to groups 0, 1, ..., 0, 1, ... in this order."""
    groups = len(scores)
    shuffled = scores.T.ravel()
    group = np.arange(len(shuffled)) % groups
    best = np.zeros(len(shuffled) + 1)  # of so many chosen among the positions before each
    for step in range(groups * keep):
        ends = np.where(group == step % groups, best[:-1] + shuffled, -np.inf)
        best = np.concatenate([[-np.inf], np.maximum.accumulate(ends)])
    return float(best[-1])


def main() -> None:
    print(f"{'model':28}{'shuffles':>9}{'groups':>7}{'tied':>9}{'ordered':>9}{'free':>9}")
    for path in map(Path, sys.argv[1:]):
        model = api.load(path)
        randomize(model)
        Normalize().run(model, Context())
        found = [scores for _, scores in shuffles(model.ir.graph)]
        shares = [
            [way(s, int(s.shape[1] * RATIO)) / float(s.sum()) for way in (tied, ordered, free)]
            for s in found
        ]
        groups = sorted({len(s) for s in found})
        means = "".join(f"{share:9.4f}" for share in np.mean(shares, axis=0))
        print(f"{path.stem:28}{len(found):>9}{','.join(map(str, groups)):>7}{means}", flush=True)


if __name__ == "__main__":
    main()
