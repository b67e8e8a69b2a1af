"""Which activations are fetched together: as many as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

PART_BYTES = 1 << 28
"""What the activations of one run may take together, unless there is only one.

A run holds them several times: in the process that runs the model, on their way, and in this one.
"""


def parts(
    sizes: Mapping[str, int], held: Callable[[str], Collection[str]] | None = None
) -> Iterator[list[str]]:
    """Cut names, in their order, into parts whose sizes sum to at most ``PART_BYTES``.

    A name counts with what `held` says that it needs beside it. What is larger by itself is a part
    of its own.
    """
    if sum(sizes.values()) <= PART_BYTES:
        yield list(sizes)
        return
    part: list[str] = []
    needed: set[str] = set()
    total = 0
    for name in sizes:
        wanted = {name, *(held(name) if held else ())}
        more = sum(sizes[other] for other in wanted - needed)
        if part and total + more > PART_BYTES:
            yield part
            part, needed, total = [], set(), 0
            more = sum(sizes[other] for other in wanted)
        part.append(name)
        needed |= wanted
        total += more
    yield part
