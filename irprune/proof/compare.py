"""Runs a masked reference and a pruned graph on the same inputs, and compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.errors import IrpruneError
from irprune.plan import take
from irprune.proof.activations import common_activations, node_outputs
from irprune.proof.feeds import LADDER, Sizes, graph_inputs, make_feeds, open_inputs
from irprune.proof.mutants import Mutant, choose_mutants
from irprune.proof.parts import Stages, parts
from irprune.proof.probe import (
    has_half,
    promote,
    reached,
    shape_name,
    sources,
    step_name,
    widened,
    write_probe,
    write_shapes,
    write_steps,
)
from irprune.proof.reference import masked_reference
from irprune.protocols import RunnerCrashed, RunnerError
from irprune.queries import constant_of

if TYPE_CHECKING:
    from irprune.passbase import Context
    from irprune.plan import Plan

Array = NDArray[Any]
Arrays = dict[str, Array]

MAX_TIPPED = 1e-3
"""Share of the integers made from floating-point numbers that rounding may change."""

QUIET = 1e-3
"""Weight of an error relative to its own channel against one relative to the whole tensor."""


class Unfinished(Exception):
    """The pruned graph could not be run, or a child process died."""


@dataclass
class Errors:
    """The largest error so far, and which activations are beyond the bound."""

    tolerance: float
    largest: float = 0.0
    worst: str | None = None
    beyond: list[str] = field(default_factory=list)

    def note(self, name: str, error: float) -> None:
        """Count the error of one activation."""
        if self.worst is None or error > self.largest:
            self.largest, self.worst = error, name
        if error > self.tolerance:
            self.beyond.append(name)

    def merge(self, other: Errors) -> None:
        """Count the errors of another sample input."""
        if self.worst is None or other.largest > self.largest:
            self.largest, self.worst = other.largest, other.worst
        self.beyond += other.beyond


@dataclass
class Trial:
    """A layer in which mistakes must be noticed: mutants of one weight, tried until one is.

    `outputs` are the first activations that the weight reaches, `inputs` those that they are
    computed from; the file computes the former from the latter.
    """

    mutants: tuple[Mutant, ...]
    file: Path
    outputs: list[str]
    inputs: set[str]
    errors: Errors
    mutant: Mutant
    """The mutant that was noticed, or the last one tried."""


class Comparison:
    """The masked reference and the pruned graph as files that expose what both compute.

    `folder` takes the files. Raises IrpruneError where the user's feeds do not fit the base, or
    the runner can run it with none of the sizes tried; Unfinished where its process dies.
    """

    def __init__(
        self,
        base: ir.Model,
        pruned: ir.Model,
        plan: Plan,
        context: Context,
        folder: Path,
        tolerance: float,
    ) -> None:
        assert context.runner is not None
        self._runner = context.runner()
        self._base, self._context, self._folder = base, context, folder
        self._half = has_half(base) or has_half(pruned)
        self._reference, self._pruned = masked_reference(base, plan), pruned.clone()
        if self._half:
            promote(self._reference)
            promote(self._pruned)
        self.activations = common_activations(self._reference.graph, self._pruned.graph, plan.axes)
        self._computed = {v.name or "": v for v in node_outputs(self._pruned.graph)}
        self.trials = [
            self._trial(number, mutants, outputs, tolerance)
            for number, mutants in enumerate(choose_mutants(self._pruned.graph, plan))
            if (outputs := self._reached(mutants[0].weight))
        ]
        self._sizes, shapes = self._runnable_sizes()
        self._write(shapes)

    def _reached(self, weight: str) -> list[str]:
        return reached(self._pruned.graph.initializers[weight], self.activations)

    def _trial(
        self, number: int, mutants: tuple[Mutant, ...], outputs: list[str], tolerance: float
    ) -> Trial:
        inputs = sources((self._computed[name] for name in outputs), self.activations)
        file = self._folder / f"layer{number}.onnx"
        write_steps(self._pruned.clone(), file, outputs, inputs, [mutants[0].weight])
        return Trial(mutants, file, outputs, inputs, Errors(tolerance), mutants[0])

    def _write(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Write both models whole, and where their activations are too large, in stages besides.

        `shapes` has those that the reference leaves open.
        """
        both = (self._reference, "reference.onnx"), (self._pruned, "pruned.onnx")
        cut = parts(
            {
                name: activation.size(shapes.get(name, activation.dims))
                for name, activation in self.activations.items()
            }
        )
        self._whole = list(self.activations)
        self._stages: list[Stages] = []
        if len(cut) > 1:
            self._whole = self._outputs
            made = [{v.name for v in node_outputs(model.graph)} for model, _ in both]
            cut = [[name for name in part if all(name in m for m in made)] for part in cut]
            self._stages = [Stages(model, self._folder / name, cut) for model, name in both]
        for model, name in both:
            write_probe(model.clone(), self._folder / name, self._whole)

    def distinct_feeds(self, seeds: int) -> int:
        """Return how many of `seeds` sample inputs differ: one where the user gave all inputs."""
        given = self._context.feeds or {}
        names = [value.name for value in graph_inputs(self._base.graph)]
        return 1 if all(name in given for name in names) else seeds

    def feeds(self, seed: int) -> Arrays:
        """Return the sample inputs number `seed`, each in another range."""
        return self._feeds(seed, self._sizes)

    def run(self, feeds: Arrays, errors: Errors) -> None:
        """Note the error of every activation of the pruned graph; then try the mutants.

        Raises Unfinished.
        """
        feeds = self._prepared(feeds)
        found: dict[str, float] = {}
        open_trials = [trial for trial in self.trials if not trial.errors.beyond]
        wanted = {name for trial in open_trials for name in (*trial.outputs, *trial.inputs)}
        remembered: Arrays = {}
        for kept, got in self._both(feeds):
            for name in kept:
                error = self._difference(name, got.pop(name), kept[name])
                found[name] = max(error, found.get(name, 0.0))
            remembered |= {name: kept[name] for name in wanted.intersection(kept)}
        for name in self.activations:
            errors.note(name, found[name])
        for trial in open_trials:
            self._try(trial, feeds, remembered)

    def _try(self, trial: Trial, feeds: Arrays, kept: Arrays) -> None:
        """Run the mutants of a layer on the reference's activations until one is noticed.

        The activations that a mistake reaches first are what the whole comparison would find.
        """
        given = feeds | {name: kept[name] for name in trial.inputs}
        for mutant in trial.mutants:
            weight = constant_of(self._pruned.graph.initializers[mutant.weight])
            assert weight is not None
            given[mutant.weight] = mutant.apply(weight)
            trial.mutant = mutant
            got = self._run_steps(trial.file, given, trial.outputs)
            for name in trial.outputs:
                trial.errors.note(name, self._difference(name, got[name], kept[name]))
            if trial.errors.beyond:
                return

    def run_steps(self, feeds: Arrays, errors: Errors) -> None:
        """Note the error that each activation of the pruned graph has of its own.

        Every node computes from the reference's activations instead of from the pruned graph's,
        so that no rounding accumulates. As a mistake in quiet channels may get loud later only,
        the error of every single channel counts too, with the weight QUIET. Raises Unfinished.
        """
        feeds = self._prepared(feeds)
        file = self._folder / "steps.onnx"
        needed = {name: self._sources(name) for name in self.activations}
        waiting = Counter(source for cut in needed.values() for source in cut)
        held: Arrays = {}
        for kept in self._kept(feeds):
            names = [name for name in kept if self.activations[name].computed]
            held |= kept
            cut = set[str]().union(*(needed[name] for name in names))
            write_steps(self._pruned.clone(), file, names, cut)
            got = self._run_steps(file, feeds | {name: held[name] for name in cut}, names)
            for name in names:
                error = self._difference(name, got[name], kept[name])
                axes = {1, *self.activations[name].masks}
                quiet = channel_error(got.pop(name), kept[name], axes) if error < np.inf else 0.0
                errors.note(name, max(error, QUIET * quiet))
                waiting.subtract(needed[name])
            held = {name: array for name, array in held.items() if waiting[name]}

    def _both(self, feeds: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield activations of the reference, their kept part, and those of the pruned graph.

        What a run of the whole models has, then, if that is not all, one part after another.
        """
        pruned = self._folder / "pruned.onnx"
        yield self._whole_kept(feeds), self._run_pruned(pruned, feeds, self._whole)
        if self._stages:
            reference, compacted = self._stages
            for values in zip(
                reference.run(self._run_base, feeds),
                compacted.run(self._run_pruned, feeds),
                strict=True,
            ):
                yield self._cut(values[0]), values[1]

    def _kept(self, feeds: Arrays) -> Iterator[Arrays]:
        """Yield the kept part of the reference's activations, each once, in their order."""
        if not self._stages:
            yield self._whole_kept(feeds)
        else:
            yield from map(self._cut, self._stages[0].run(self._run_base, feeds))

    def _whole_kept(self, feeds: Arrays) -> Arrays:
        return self._cut(self._run_base(self._folder / "reference.onnx", feeds, self._whole))

    def _cut(self, values: Arrays) -> Arrays:
        """Return the kept part of activations of the reference; empties `values`."""
        return {name: take(values.pop(name), self.activations[name].masks) for name in list(values)}

    def _sources(self, name: str) -> set[str]:
        """Return the activations that the pruned graph computes one from."""
        if not self.activations[name].computed:
            return set()
        return sources([self._computed[name]], self.activations)

    def _run_steps(self, file: Path, given: Arrays, names: Sequence[str]) -> Arrays:
        got = self._run_pruned(file, given, [step_name(name) for name in names])
        return {name: got[step_name(name)] for name in names}

    def _difference(self, name: str, got: Array, want: Array) -> float:
        return difference(got, want, self.activations[name].rounded)

    def _run_pruned(self, file: Path, feeds: Arrays, names: Sequence[str]) -> Arrays:
        try:
            return self._runner.run(file, feeds, names)
        except RunnerError as error:
            raise Unfinished(f"the pruned model does not run: {self._text(error)}") from error

    def _run_base(self, file: Path, feeds: Arrays, names: Sequence[str]) -> Arrays:
        try:
            return self._runner.run(file, feeds, names)
        except RunnerCrashed as error:
            raise Unfinished(f"the masked base does not run: {self._text(error)}") from error
        except RunnerError as error:
            raise IrpruneError(
                f"the base cannot be run, so nothing can be proved: {self._text(error)}",
                mend="models with custom ops or unsupported types cannot be proved; sizes and "
                "inputs can be given with --shape and --inputs",
            ) from error

    def _text(self, error: RunnerError) -> str:
        """Return what the runner said, without the temporary folder."""
        return error.reason.replace(f"{self._folder}/", "")

    def _runnable_sizes(self) -> tuple[Sizes, dict[str, tuple[int, ...]]]:
        """Return the first sizes for open axes that the base runs with.

        And the shapes that activations of open shape have then, on the first sample input.
        """
        given = {*self._context.shapes, *(self._context.feeds or {})}
        opened = open_inputs(self._base.graph) - given
        inner = [
            name
            for name, activation in self.activations.items()
            if activation.open and name not in self._outputs
        ]
        if not opened and not inner:
            return Sizes(), {}
        file = self._folder / "shapes.onnx"
        write_shapes(self._reference.clone(), file, inner)
        failure: IrpruneError | None = None
        for sizes in LADDER if opened else (Sizes(),):
            try:
                feeds = self._prepared(self._feeds(0, sizes))
                found = self._run_base(file, feeds, [*self._outputs, *map(shape_name, inner)])
            except IrpruneError as error:
                failure = failure or error
                continue
            shapes = {name: found[name].shape for name in self._outputs}
            return sizes, shapes | {n: tuple(found[shape_name(n)].tolist()) for n in inner}
        assert failure is not None, "there are sizes to try"
        raise failure

    @property
    def _outputs(self) -> list[str]:
        return [v.name or "" for v in self._base.graph.outputs if v.name in self.activations]

    def _prepared(self, feeds: Arrays) -> Arrays:
        return widened(feeds) if self._half else feeds

    def _feeds(self, seed: int, sizes: Sizes) -> Arrays:
        context = self._context
        return make_feeds(
            self._base, context.shapes, context.seed + seed, context.feeds, seed, sizes
        )


def difference(got: Array, want: Array, rounded: bool) -> float:
    """Return the error of an activation: the relative one of floating-point numbers.

    Anything else has error 0 if equal (or `rounded` and nearly everywhere equal), else infinite;
    so have arrays of different shapes or types.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        return np.inf
    if want.dtype.kind in "fc":
        return relative_error(got, want)
    tipped = int(np.count_nonzero(got != want))
    return 0.0 if tipped <= (MAX_TIPPED * want.size if rounded else 0) else np.inf


def relative_error(got: Array, want: Array) -> float:
    """Return ``max|got - want| / max|want|`` over the finite positions, arrays of equal shape.

    Infinite where the two are not infinite or NaN at the same positions, or where `want` is zero
    everywhere and `got` is not.
    """
    if not want.size:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(got - want).max())
        if not np.isfinite(largest):
            finite = np.isfinite(want)
            if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
                return np.inf
            got, want = got[finite], want[finite]
            largest = float(np.abs(got - want).max(initial=0))
    if largest == 0:
        return 0.0
    scale = float(np.abs(want).max())
    return largest / scale if np.isfinite(largest) and scale else np.inf


def channel_error(got: Array, want: Array, axes: Collection[int]) -> float:
    """Return the largest relative error of a single position of any of the axes.

    For floating-point arrays of equal shape whose infinite and NaN positions agree; 0 for others.
    """
    if want.dtype.kind not in "fc" or not want.size:
        return 0.0
    finite = np.isfinite(want)
    difference = np.abs(np.subtract(got, want, where=finite, out=np.zeros_like(want)))
    size = np.where(finite, np.abs(want), 0)
    largest = 0.0
    for axis in axes:
        if axis < want.ndim:
            others = tuple(k for k in range(want.ndim) if k != axis)
            off, scale = difference.max(others), size.max(others)
            ratio = np.divide(off, scale, where=scale > 0, out=np.where(off > 0, np.inf, 0.0))
            largest = max(largest, float(ratio.max()))
    return largest
