"""Runs a masked reference, a pruned graph and its mutants on the same inputs, and compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.agreement import take
from irprune.errors import IrpruneError
from irprune.feeds import LADDER, Sizes, graph_inputs, make_feeds, open_inputs
from irprune.mutants import Mutant, choose_mutants
from irprune.probe import (
    Activation,
    Kind,
    common_activations,
    has_half,
    promote,
    sources,
    step_name,
    widened,
    write_probe,
    write_steps,
)
from irprune.protocols import RunnerCrashed, RunnerError
from irprune.reference import masked_reference
from irprune.walk import constant_of, dims_of

if TYPE_CHECKING:
    from irprune.passbase import Context
    from irprune.plan import Plan

Array = NDArray[Any]
Arrays = dict[str, Array]

MAX_TIPPED = 1e-3
"""Share of the integers made from floating-point numbers that rounding may change."""

_CHUNK_ELEMENTS = 1 << 27


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


class Comparison:
    """The masked reference and the pruned graph as files that expose what both compute.

    `folder` takes the files. Raises IrpruneError where the user's feeds do not fit the base, or
    the runner can run it with none of the sizes tried; Unfinished where its process dies.
    """

    def __init__(
        self, base: ir.Model, pruned: ir.Model, plan: Plan, context: Context, folder: Path
    ) -> None:
        assert context.runner is not None
        self._runner = context.runner()
        self._base, self._context = base, context
        self._half = has_half(base) or has_half(pruned)
        self._reference_file, self._pruned_file = folder / "reference.onnx", folder / "pruned.onnx"
        self._steps_file = folder / "steps.onnx"
        reference, self._pruned = masked_reference(base, plan), pruned.clone()
        if self._half:
            promote(reference)
            promote(self._pruned)
        self.activations = common_activations(reference.graph, self._pruned.graph, plan.axes)
        self.mutants = choose_mutants(self._pruned.graph, plan)
        names = [activation.name for activation in self.activations]
        weights = [mutant.weight for mutant in self.mutants]
        write_probe(reference, self._reference_file, names)
        write_probe(self._pruned.clone(), self._pruned_file, names, weights)
        self._sizes = self._runnable_sizes()

    def distinct_feeds(self, seeds: int) -> int:
        """Return how many of `seeds` sample inputs differ: one where the user gave all inputs."""
        given = self._context.feeds or {}
        names = [value.name for value in graph_inputs(self._base.graph)]
        return 1 if all(name in given for name in names) else seeds

    def feeds(self, seed: int) -> Arrays:
        """Return the sample inputs number `seed`, each in another range."""
        return self._feeds(seed, self._sizes)

    def run(self, feeds: Arrays, errors: Errors, mutants: Mapping[Mutant, Errors]) -> None:
        """Note the error of every activation of the pruned graph, and of the mutants given.

        A mutant counts only where the pruned graph itself is within the bound, and it is left
        alone once it is found out. Raises Unfinished.
        """
        feeds = self._prepared(feeds)
        for chunk in self._chunks(feeds):
            kept = self._run_reference(feeds, chunk)
            self._compare(feeds, chunk, kept, errors)
            fair = [activation for activation in chunk if activation.name not in errors.beyond]
            for mutant, found in mutants.items():
                if not found.beyond:
                    weight = constant_of(self._pruned.graph.initializers[mutant.weight])
                    assert weight is not None
                    changed = {**feeds, mutant.weight: mutant.apply(weight)}
                    self._compare(changed, fair, kept, found)

    def run_steps(self, feeds: Arrays, errors: Errors) -> None:
        """Note the error that each activation of the pruned graph has of its own.

        Every node computes from the reference's activations instead of from the pruned graph's,
        so that no rounding accumulates. Raises Unfinished.
        """
        feeds = self._prepared(feeds)
        known = {activation.name: activation for activation in self.activations}
        for chunk in self._chunks(feeds):
            names = [a.name for a in chunk if a.computed]
            cut = sources(self._pruned.graph, names, known)
            needed = {activation.name: activation for activation in chunk}
            needed |= {name: known[name] for name in cut}
            kept = self._run_reference(feeds, list(needed.values()))
            write_steps(self._pruned.clone(), self._steps_file, names, cut)
            given = feeds | {name: kept[name] for name in cut}
            got = self._run_pruned(self._steps_file, given, [step_name(name) for name in names])
            for name in names:
                error = difference(got.pop(step_name(name)), kept[name], known[name].kind)
                errors.note(name, error)

    def _compare(
        self, feeds: Arrays, chunk: Sequence[Activation], kept: Arrays, errors: Errors
    ) -> None:
        got = self._run_pruned(self._pruned_file, feeds, [a.name for a in chunk])
        for activation in chunk:
            name = activation.name
            errors.note(name, difference(got.pop(name), kept[name], activation.kind))

    def _run_pruned(self, file: Path, feeds: Arrays, names: Sequence[str]) -> Arrays:
        try:
            return self._runner.run(file, feeds, names)
        except RunnerError as error:
            raise Unfinished(f"the pruned model does not run: {error.reason}") from error

    def _run_reference(self, feeds: Arrays, chunk: Sequence[Activation]) -> Arrays:
        """Return the kept part of activations of the reference."""
        values = self._run_base(feeds, [activation.name for activation in chunk])
        return {a.name: take(values.pop(a.name), a.masks) for a in chunk}

    def _run_base(self, feeds: Arrays, names: Sequence[str]) -> Arrays:
        try:
            return self._runner.run(self._reference_file, feeds, names)
        except RunnerCrashed as error:
            raise Unfinished(f"the masked base does not run: {error.reason}") from error
        except RunnerError as error:
            raise IrpruneError(
                f"the base cannot be run, so nothing can be proved: {error.reason}",
                mend="models with custom ops or unsupported types cannot be proved; sizes and "
                "inputs can be given with --shape and --inputs",
            ) from error

    def _runnable_sizes(self) -> Sizes:
        """Return the first sizes for open axes that the base runs with."""
        given = {*self._context.shapes, *(self._context.feeds or {})}
        outputs = [value.name or "" for value in self._base.graph.outputs]
        for sizes in LADDER if open_inputs(self._base.graph) - given else ():
            try:
                self._run_base(self._prepared(self._feeds(0, sizes)), outputs)
            except IrpruneError:
                continue
            return sizes
        return Sizes()

    def _prepared(self, feeds: Arrays) -> Arrays:
        return widened(feeds) if self._half else feeds

    def _feeds(self, seed: int, sizes: Sizes) -> Arrays:
        context = self._context
        return make_feeds(
            self._base, context.shapes, context.seed + seed, context.feeds, seed, sizes
        )

    def _chunks(self, feeds: Arrays) -> Iterator[list[Activation]]:
        """Cut the activations into parts that fit into memory."""
        inputs = [(dims_of(v) or (), feeds[v.name or ""]) for v in graph_inputs(self._base.graph)]
        symbols = {
            dim: length
            for dims, array in inputs
            for dim, length in zip(dims, array.shape, strict=False)
            if isinstance(dim, str)
        }
        chunk: list[Activation] = []
        elements = 0
        for activation in self.activations:
            elements += activation.elements(symbols)
            if chunk and elements > _CHUNK_ELEMENTS:
                yield chunk
                chunk, elements = [], activation.elements(symbols)
            chunk.append(activation)
        yield chunk


def difference(got: Array, want: Array, kind: Kind) -> float:
    """Return the relative error of an activation: 0 for equal ones, infinite beyond comparison."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return np.inf
    if kind is Kind.FLOAT:
        return relative_error(got, want)
    tipped = int(np.count_nonzero(got != want))
    return 0.0 if tipped <= (MAX_TIPPED * want.size if kind is Kind.ROUNDED else 0) else np.inf


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
