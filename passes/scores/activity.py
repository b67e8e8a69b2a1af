"""How much each channel matters on data: scores from activations and gradients.

Criteria of activations, where A is a channel's activation after the non-linearity, on b examples
and h·w positions (also where these lie along the axis of the channels, as after a Flatten):

- ``mean-activation``: the mean of |A|. Zhao et al. (Iterative Activation-based Structured Pruning),
  in words: "calculate the mean of its activation A".
- ``sum-activation``: the same paper's formula, Ā = 1/b Σ_k Σ_l a_kl, which divides by the batch
  alone. The two rank alike within a layer and differ across layers, and under a threshold.
  Behind the paper's ReLU, |A| = A; where A can be negative, what is far below zero matters too.
- ``apoz``: one less the average percentage of zeros (Hu et al. 2016, Network Trimming, eq. 1).
- ``taylor``: |1/M Σ_m ∂C/∂z_m z_m| per example, M = h·w, averaged over examples (Molchanov et al.
  2017, Pruning CNNs for Resource Efficient Inference, section 2.2).
- ``fisher``: 1/(2N) Σ_n g_n² with g_n = -Σ a ∂L_n/∂a (Theis et al. 2018, Fisher pruning).

Criteria of weights w, where g is the gradient of the mean loss of a batch:

- ``gradient``: Σ |g|, g averaged over the batches.
- ``hessian``: Σ ½ h w², the saliency of Optimal Brain Damage (LeCun et al. 1990), its diagonal h
  being the empirical Fisher information: the mean over batches of b g² (exact where b = 1).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.labels import Labels
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.scores.calibration import Samples, fixed_batch
from irprune.passes.scores.importance import (
    Aggregate,
    Importance,
    Members,
    Scores,
    rows_by_class,
    rows_of,
)
from irprune.passes.scores.sites import Measured, measured_at, shared
from irprune.proof.probe import has_half, promote, widened, write_probe
from irprune.protocols import Arrays, Runner, RunnerError
from irprune.training import Differentiator, LabelError

Activations = Literal["mean-activation", "sum-activation", "apoz"]
Sensitivities = Literal["taylor", "fisher"]
Elements = Literal["gradient", "hessian"]
DataCriterion = Literal[
    "mean-activation", "sum-activation", "apoz", "taylor", "fisher", "gradient", "hessian"
]
DATA_CRITERIA: tuple[str, ...] = get_args(DataCriterion)


def spread(
    parts: Sequence[tuple[NDArray[np.float64], Labels]], group: Group, aggregate: Aggregate
) -> Scores:
    """Return one score per class of a group from the scores of each part, shape ``(size,)``.

    Each class is in a part at least.
    """
    scores = np.concatenate([scores for scores, _ in parts])
    position = np.searchsorted(group.classes, np.concatenate([classes for _, classes in parts]))
    times = np.bincount(position, minlength=len(group))
    assert times.all(), f"channels of {group.name} have no score"
    if aggregate == "max":
        highest = np.full(len(group), -np.inf)
        np.maximum.at(highest, position, scores)
        return highest
    total: Scores = np.bincount(position, scores, len(group)).astype(np.float64)
    return total if aggregate == "sum" else total / times


class Activity:
    """Scores of the classes of a graph from what it computes on samples.

    Raises:
        IrpruneError: the criterion needs labels or a backend that is not there, or a number on the
            way is NaN or infinite.
    """

    def __init__(
        self,
        model: Model,
        channels: Channels,
        groups: Sequence[Group],
        criterion: DataCriterion,
        samples: Samples,
        context: Context,
        members: Members = "producers",
        aggregate: Aggregate = "mean",
    ) -> None:
        model, samples = _in_float32(model, samples)
        self._aggregate = aggregate
        self._sites = {group.index: measured_at(channels, group) for group in groups}
        self._weights: Importance | None = None
        self._means: _Means = {}
        if criterion in get_args(Elements):
            elements = _elements(model, channels, criterion, samples, _differentiator(context))
            self._weights = _OfElements(channels, elements, members, aggregate)
            return
        sites = {(s.name, s.axis): s for found in self._sites.values() for s in found}
        if not sites:
            return
        trial = _Trial(channels.graph, sites, _MEASURES[criterion], samples)
        if criterion in get_args(Activations):
            if context.runner is None:
                mend = "install the extra: pip install 'irprune[cpu]'"
                raise IrpruneError(f"criterion {criterion} needs onnxruntime", mend=mend)
            self._means = _activations(model, trial, context.runner())
        else:
            self._means = _sensitivities(model, trial, criterion, _differentiator(context))

    def of(self, group: Group) -> Scores | None:
        """Return the scores of a group's classes, shape ``(size,)``; None where undefined."""
        if self._weights is not None:
            return self._weights.of(group)
        sites = self._sites[group.index]
        if not sites:
            return None
        return spread([self._counted(site) for site in sites], group, self._aggregate)

    def _counted(self, site: Measured) -> tuple[NDArray[np.float64], Labels]:
        counts = np.isin(site.distinct, site.counted)
        return self._means[site.name, site.axis][counts], site.counted


def _itself(numbers: NDArray[Any]) -> NDArray[Any]:
    return numbers


_Function = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class _Measure:
    """How an example scores a class: `at` each of its positions, their mean or sum, `of` that."""

    over: Literal["mean", "sum"]
    at: _Function = _itself
    of: _Function = _itself

    def mean(self, site: Measured, array: NDArray[Any], examples: int) -> NDArray[np.float64]:
        """Return the mean score of the examples of a run, shape ``(count,)``."""
        sums, positions = site.summed(self.at(array))
        return self.of(sums / (positions if self.over == "mean" else examples))


_MEASURES: Mapping[str, _Measure] = {
    # of activations
    "mean-activation": _Measure("mean", at=np.abs),
    "sum-activation": _Measure("sum", at=np.abs),
    "apoz": _Measure("mean", at=lambda a: a != 0),
    # of products of activation and gradient
    "taylor": _Measure("mean", of=np.abs),
    "fisher": _Measure("sum", of=lambda g: g**2 / 2),
}
_Means = dict[tuple[str, int], NDArray[np.float64]]


@dataclass(frozen=True)
class _Trial:
    """What is measured of samples, and where: sites by the name and axis of their value."""

    graph: ir.Graph
    sites: Mapping[tuple[str, int], Measured]
    measure: _Measure
    samples: Samples

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.sites))

    def means(self, run: Callable[[Samples], Arrays]) -> _Means:
        """Return the mean score of the samples at each site, shape ``(count,)``."""
        totals: dict[tuple[str, int], Any] = {}
        for numbers in self._runs():
            found = run(self.samples.take(numbers))
            for key, site in self.sites.items():
                array = found[site.name]
                if not np.isfinite(array).all():
                    reason = f"activation {site.name} is NaN or infinite on the samples"
                    raise IrpruneError(reason, mend="check the samples' range and the model")
                scores = self.measure.mean(site, array, len(numbers))
                totals[key] = totals.get(key, 0.0) + scores * len(np.unique(numbers))
        return {key: total / len(self.samples) for key, total in totals.items()}

    def _runs(self) -> Iterable[NDArray[np.int64]]:
        """Return the numbers of the examples that each run takes.

        Where an example lies in an activation no shape tells: tokens or windows may stand before
        the examples, or be merged with them. What is no mean over all examples is therefore
        measured on one of them at a time; a batch that the model fixes is filled with it.
        """
        linear = self.measure.of is _itself
        if linear and self.measure.over == "mean":
            return self.samples.parts()
        common = shared(self.graph, self.sites.values())
        if linear and not common:
            return self.samples.parts()
        batch = fixed_batch(self.graph) or 1
        if common and batch > 1:
            raise common[0].refused(
                "does not depend on the samples: how much of it belongs to one of the "
                f"{batch} examples of the model's batch cannot be told",
                "export the model with a dynamic batch, choose mean-activation",
            )
        return (np.full(batch, number) for number in range(len(self.samples)))


def _activations(model: Model, trial: _Trial, runner: Runner) -> _Means:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        write_probe(model.ir.clone(), path, trial.names)

        def run(part: Samples) -> Arrays:
            try:
                return runner.run(path, part.feeds, trial.names)
            except RunnerError as error:
                error.file = model.provenance.path  # the probe is gone when the message is read
                raise

        return trial.means(run)


def _sensitivities(model: Model, trial: _Trial, criterion: str, backend: Differentiator) -> _Means:
    def run(part: Samples) -> Arrays:
        found = _gradients(model, part, criterion, backend, trial.names)
        for site in trial.sites.values():
            if site.name not in found:
                raise site.refused(
                    "has no counterpart in torch, which computes it inside another operation",
                    "normalize the model first, choose mean-activation or a criterion of weights",
                )
        return {name: value * slope for name, (value, slope) in found.items()}

    return trial.means(run)


def _gradients(
    model: Model, part: Samples, criterion: str, backend: Differentiator, names: Sequence[str]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    try:
        return backend.gradients(model, part.feeds, part.classes(criterion), names)
    except LabelError as error:
        error.file = part.file
        raise


def _in_float32(model: Model, samples: Samples) -> tuple[Model, Samples]:
    """Return model and samples in float32 where the model computes in less.

    Runtimes lack half of the ops in bfloat16, and numpy knows no such numbers.
    """
    if not has_half(model.ir):
        return model, samples
    wide = model.clone()
    promote(wide.ir)
    return wide, replace(samples, feeds=widened(samples.feeds))


def _elements(
    model: Model, channels: Channels, criterion: str, samples: Samples, backend: Differentiator
) -> dict[str, NDArray[np.float64]]:
    """Return the score of every element of the weights along whose axes channels lie."""
    sites = [*channels.producers, *channels.consumers]
    values = {s.value.name or "": s.value for s in sites if s.value.is_initializer()}
    if not values:
        return {}
    totals: dict[str, Any] = {}
    count = 0
    for batch in map(samples.take, samples.parts()):
        found = _gradients(model, batch, criterion, backend, list(values))
        size, count = len(batch), count + len(batch)
        for name, (_, slope) in found.items():
            slope = slope.astype(np.float64)
            # The gradient is of the sum of losses: b g² is its square over b.
            part = slope if criterion == "gradient" else slope**2 / size
            totals[name] = totals.get(name, 0.0) + (
                part if criterion == "gradient" else part * size
            )
    scores = {}
    for name, total in totals.items():
        mean = total / count
        if criterion == "hessian":
            weight = values[name].const_value
            assert weight is not None
            mean = mean * weight.numpy().astype(np.float64) ** 2 / 2
        if not np.isfinite(mean).all():
            raise IrpruneError(f"the gradient of {name} is NaN or infinite on the samples")
        scores[name] = np.abs(mean)
    return scores


class _OfElements(Importance):
    """Importance of slices whose elements have scores, which are added up."""

    def __init__(
        self,
        channels: Channels,
        elements: Mapping[str, NDArray[np.float64]],
        members: Members,
        aggregate: Aggregate,
    ) -> None:
        super().__init__(channels, "l1", members, aggregate, 0)
        self._elements = elements

    def _slice(self, value: ir.Value, axis: int, classes: Labels) -> tuple[Scores, Labels]:
        shape = [int(n) for n in value.shape or ()]  # type: ignore[arg-type]
        found = self._elements.get(value.name or "", np.zeros(shape))
        if classes.ndim == 1:
            return rows_of(found, axis).sum(axis=1), classes
        rows, ids = rows_by_class(found, axis, self.channels.per(value, axis), classes)
        return rows.sum(axis=1), ids


def _differentiator(context: Context) -> Differentiator:
    if context.differentiator is None:
        mend = "install the extra: pip install 'irprune[torch]'"
        raise IrpruneError("criteria of gradients need torch", mend=mend)
    return context.differentiator()
