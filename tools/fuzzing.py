"""What the fuzzers share: how they damage a file, and the loop that runs them."""

from __future__ import annotations

import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

SLOWEST = 5.0
"""Seconds of the process's own time that a round may take."""
LARGEST = 400_000
TOKENS = re.compile(rb"[A-Za-z0-9_.]+|\s+|.", re.DOTALL)


def damage(data: bytes, other: bytes, pieces: list[bytes], chance: random.Random) -> bytes:
    """The data with a few changes at random places, near the start as often as anywhere."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        most = chance.choice([16, 256, len(out)])
        place = chance.randrange(min(most, len(out)) + 1)
        length = chance.choice([0, 1, 1, 4, 64])
        match chance.randrange(5):
            case 0:
                new = bytes(chance.randrange(256) for _ in range(length))
            case 1:
                new = chance.choice(pieces) * chance.choice([1, 1, 1, 3, 200])
            case 2:
                start = chance.randrange(len(other) + 1)
                new = other[start : start + chance.choice([8, 64, 512])]
            case 3:
                new = bytes(out[place : place + length]) * 2
            case _:
                new = b""
                if chance.random() < 0.1:
                    del out[place:]
        if chance.random() < 0.5:
            length = len(new)  # keep the lengths around it true
        out[place : place + length] = new
    return bytes(out[:LARGEST])


def shuffle(data: bytes, chance: random.Random) -> bytes:
    """The text with a few of its tokens swapped."""
    tokens = TOKENS.findall(data)
    for _ in range(chance.choice([1, 2, 8])):
        one, other = chance.randrange(len(tokens)), chance.randrange(len(tokens))
        tokens[one], tokens[other] = tokens[other], tokens[one]
    return b"".join(tokens)


def fuzz(one_round: Callable[[str], str], seconds: float, seed: str) -> int:
    """Run rounds, each with a seed of its own, and count what they return; the exit status.

    A round that raises anything, or that takes too long, is reported with its seed and ends it.
    """
    done: Counter[str] = Counter()
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        name = f"{seed}-{done.total()}"
        before = time.process_time()
        try:
            done[one_round(name)] += 1
        except Exception:  # whatever a reader lets through is what a fuzzer looks for
            traceback.print_exc()
            print(f"round {name} failed", file=sys.stderr)
            return 1
        if (took := time.process_time() - before) > SLOWEST:
            print(f"round {name} took {took:.1f} s", file=sys.stderr)
            return 1
    print(f"{done.total()} rounds: {', '.join(f'{n} {what}' for what, n in sorted(done.items()))}")
    return 0
