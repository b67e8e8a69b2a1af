"""A model run in parts, so that the activations fetched from one run fit into memory.

onnxruntime holds every graph output of a file until the run ends, whether it is fetched or not. So
each part of the activations has a file of its own, which computes them from what the files before
it computed: every node still runs once, on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.ops import bodies
from irprune.proof.activations import inputs_of, node_outputs
from irprune.proof.probe import step_name, write_steps

Arrays = dict[str, NDArray[np.generic]]
Run = Callable[[Path, dict[str, Any], Sequence[str]], dict[str, Any]]

PART_BYTES = 1 << 28
"""What the activations fetched from one run may take together, unless there is only one.

They exist several times: in the process that runs the model, on their way, and in this one.
"""


def parts(sizes: Mapping[str, int]) -> list[list[str]]:
    """Cut names, in their order, into parts whose sizes sum to at most ``PART_BYTES``.

    What is larger by itself is a part of its own.
    """
    found: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not found or size > room:
            found.append([])
            room = max(size, PART_BYTES)
        found[-1].append(name)
        room -= size
    return found


@dataclass(frozen=True)
class Stage:
    """A file that computes one part of the activations."""

    file: Path
    given: frozenset[str]
    """What earlier stages computed, given as inputs."""
    exposed: list[str]
    """What it computes: activations of its part, and what later stages are given."""


class Stages:
    """A model as files that compute its activations part by part, each from those before it.

    `needed` are the node outputs to compute, in parts.
    """

    def __init__(self, model: ir.Model, path: Path, needed: Sequence[Sequence[str]]) -> None:
        """Write a file per part, named after `path`."""
        self._parts = needed
        given, made = _cuts(model.graph, needed)
        self._last: dict[str, int] = {}
        """The last part that each value is needed in."""
        for number, names in enumerate(needed):
            self._last |= dict.fromkeys((*names, *given[number]), number)
        exposed = [[n for n in self._last if made[n] == number] for number in range(len(needed))]
        self._stages = [
            Stage(path.with_stem(f"{path.stem}-stage{number}"), cut, outputs)
            for number, (cut, outputs) in enumerate(zip(given, exposed, strict=True))
        ]
        for stage in self._stages:
            if stage.exposed:
                write_steps(model.clone(), stage.file, stage.exposed, stage.given)

    def run(self, run: Run, feeds: Mapping[str, Any]) -> Iterator[Arrays]:
        """Yield the activations of one part after another."""
        held: dict[str, Any] = {}
        for number, (stage, names) in enumerate(zip(self._stages, self._parts, strict=True)):
            got: dict[str, Any] = {}
            if stage.exposed:
                inputs = {**feeds, **{name: held[name] for name in stage.given}}
                got = run(stage.file, inputs, [step_name(name) for name in stage.exposed])
            held |= {name: got.pop(step_name(name)) for name in stage.exposed}
            yield {name: held[name] for name in names}
            held = {name: array for name, array in held.items() if self._last[name] > number}


def _cuts(
    graph: ir.Graph, needed: Sequence[Collection[str]]
) -> tuple[list[frozenset[str]], dict[str, int]]:
    """Return what each part is given, and by name the part that computes a value first.

    A part is given what earlier ones computed, unless that is no tensor: it computes it again.
    """
    produced = {value.name: value for value in node_outputs(graph)}
    given: list[frozenset[str]] = []
    made: dict[str, int] = {}
    for number, names in enumerate(needed):
        cut: set[str] = set()
        nodes: set[ir.Node] = set()
        stack: list[ir.Value] = [produced[name] for name in names if name not in made]
        while stack:
            value = stack.pop()
            node, name = value.producer(), value.name or ""
            if name in made and value.dtype is not None and isinstance(value.type, ir.TensorType):
                cut.add(name)
            elif node is not None and node not in nodes:
                nodes.add(node)
                stack += (v for v in _read(node) if (by := v.producer()) and by.graph is graph)
        given.append(frozenset(cut))
        for node in nodes:
            for value in node.outputs:
                made.setdefault(value.name or "", number)
    return given, made


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Iterate over the values that a node or one of its bodies reads."""
    yield from inputs_of(node)
    for body in bodies(node):
        for inner in body.all_nodes():
            yield from inputs_of(inner)
