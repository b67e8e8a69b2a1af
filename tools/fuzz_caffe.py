"""Fuzz the readers of Caffe's files: real files, damaged at random, for as long as asked.

    python tools/fuzz_caffe.py --seconds 600 [--seed 0] [--shared ../shared]

Each round takes a real prototxt, solver or caffemodel, damages it (bytes flipped, cut, repeated,
moved between files, tokens swapped) and reads it. Anything but a result or an IrpruneError is
reported with its seed and ends the run with exit status 1; so does a round that takes over five
seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

from fuzzing import LARGEST, damage, fuzz, shuffle

from irprune.errors import IrpruneError
from irprune.frontends.caffe.network import network_of
from irprune.frontends.caffe.solver import solver_of
from irprune.frontends.caffe.text import parse
from irprune.frontends.caffe.weights import blobs_of

PIECES = [
    *(b"{", b"}", b"<", b">", b"[", b"]", b":", b",", b";", b"-", b'"', b"'", b"\\", b"#", b"\n"),
    *(b"layer {", b"layers {", b"type: 5", b"include {", b"phase: TEST", b"inf", b"nan", b"0x"),
    *(b"1e999", b"9" * 40, b"\\xff", b"\\777", b"\xff\xfe", b"\0", b"true", b"param: 'w'"),
]
WIRE = [
    *(b"\xff" * 10, b"\x80", b"\xa2\x06", b"\x12", b"\x0a", b"\x2d", b"\x41", b"\x3a\x00"),
    *(b"\xff\xff\xff\xff\x0f", b"\x00", b"\x08\x00", b"\x3a\x02\x08\x00", b"\x0b", b"\x0c"),
]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace")


def read_text(data: bytes, chance: random.Random) -> None:
    """Read a network or a solver, then everything in it that can be asked for."""
    message = parse(text_of(data))
    if "lr_policy" in message:
        solver = solver_of(message)
        solver.rate(chance.randrange(10**6))
        solver.train_network()
    else:
        net = network_of(message, chance.choice(["TRAIN", "TEST"]))
        list(net.unread())


def read_weights(data: bytes, chance: random.Random) -> None:
    for blobs in blobs_of(data).values():
        for blob in blobs:
            blob.tobytes()


def one_round(seed: str, texts: list[bytes], models: list[bytes]) -> str:
    """Read one damaged file; what came of it in a word."""
    chance = random.Random(seed)
    reader: Callable[[bytes, random.Random], None]
    if chance.random() < 0.5:
        data, reader = chance.choice(texts), read_text
        if chance.random() < 0.3:
            data = shuffle(data, chance)
        else:
            data = damage(data, chance.choice(texts), PIECES, chance)
    else:
        reader = read_weights
        data = damage(chance.choice(models), chance.choice(models), WIRE, chance)
    kind = "text" if reader is read_text else "weights"
    try:
        reader(data, chance)
    except IrpruneError as error:
        str(error).encode()
        return f"{kind} refused"
    return f"{kind} read"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", default="0")
    options.add_argument("--shared", type=Path, default=Path("../shared"))
    given = options.parse_args()
    caffe = given.shared / "caffe"
    texts = [path.read_bytes() for path in sorted(caffe.rglob("*.prototxt"))]
    models = [path.read_bytes() for path in sorted(caffe.rglob("*.caffemodel"))]
    models = [model for model in models if len(model) < LARGEST]
    if not texts or not models:
        print(f"no Caffe files below {caffe}", file=sys.stderr)
        return 2
    return fuzz(lambda seed: one_round(seed, texts, models), given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main())
