"""What the core and the passes need from a backend: run a model, time it, know a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from irprune.channels import Channels
    from irprune.groups import Group

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name."""


class RunnerError(IrpruneError):
    """The backend refused the model or its inputs; carries the backend's own text."""


class RunnerCrashed(RunnerError):
    """The process that ran the model died; the message names the signal or exit status."""


class Runner(Protocol):
    """Runs model files, so that a native crash is a result and not the end of the caller."""

    def run(
        self,
        model: Path,
        feeds: Arrays,
        outputs: Sequence[str] | None = None,
        *,
        optimize: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Return the named graph outputs of the model file (None: all of them), in that order.

        `feeds` holds one array per graph input, in the shape and dtype that the model declares.
        `optimize` turns the backend's graph optimisations on.

        Raises RunnerError if the backend reports an error, RunnerCrashed if its process dies.
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BenchSettings:
    """How to measure.

    `rounds` None: rounds go on until the interval of each ratio (of the median, if there is one
    model only) is narrower than the fraction `precision` of its value, or until `limit_s` seconds
    of rounds are over. Each model runs in `processes` processes, one after the other, which share
    the rounds: where a process lies in memory makes it up to some per cent faster or slower for
    as long as it lives. Where they leave time and an interval that is too wide, more follow.
    `warmup` counts untimed runs of each model before the first round. The `provider` may be a
    short name (`cpu`, `cuda`, `tensorrt`) or onnxruntime's own. `seed` draws the order of the
    models in each round and the bootstrap samples.
    """

    rounds: int | None = None
    processes: int = 6
    precision: float = 0.01
    limit_s: float = 30.0
    warmup: int = 3
    threads: int = 1
    provider: str = "cpu"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


USUAL_BENCH = BenchSettings()


@dataclass(frozen=True)
class LatencyRow:
    """What was measured of one model, in seconds per run and bytes.

    `samples_s` has one entry per completed round, in order. `ratio` is relative to the first model:
    the mean over processes of the median of the ratios of their rounds. Where `error` is set,
    there are no estimates; `ratio` is also None where the first model failed. `memory_bytes` is
    the peak above the state before the model was loaded, None where the system does not tell.
    `nodes` counts nodes by the provider that runs them ({} if unknown), `disk_bytes` external
    data too. `notes` say what may make the numbers doubtful.
    """

    path: str
    disk_bytes: int
    samples_s: tuple[float, ...] = ()
    latency: Estimate | None = None
    ratio: Estimate | None = None
    memory_bytes: int | None = None
    nodes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class NodeTime:
    """A node that a backend ran, the seconds it took, and the model's nodes that it stands for.

    `nodes` is empty where the node is the backend's own, a change of layout say.
    """

    name: str
    op: str
    provider: str
    seconds: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """Models measured side by side: a row for each, notes on all, and the environment."""

    rows: tuple[LatencyRow, ...]
    rounds: int
    notes: tuple[str, ...]
    environment: Mapping[str, Any]


class Bencher(Protocol):
    """Measures the latency of several models side by side."""

    def bench(
        self,
        models: Sequence[Path],
        feeds: Arrays,
        settings: BenchSettings = USUAL_BENCH,
    ) -> Benchmark:
        """Return one row per model, in order; every round times each model once.

        `feeds` goes to every model: by name, or by position where the names differ and types and
        shapes agree. A model that fails or crashes has its error in its row; the others still run.

        Raises IrpruneError where the settings make no sense or the provider is not there.
        """
        ...


@dataclass(frozen=True)
class Kernel:
    """Nodes that run as one unit; what they cost depends on a few axis lengths alone.

    `axes` are numbers of tensor axes, as `Channels.lengths` counts them.
    """

    name: str
    axes: tuple[int, ...]


class AdditiveCost(Protocol):
    """A cost of one base graph under any plan: a constant, and one term per kernel.

    Seconds of a device, MACs, parameters and bytes all take this form, so one solver serves all.
    """

    @property
    def constant(self) -> float: ...

    @property
    def kernels(self) -> Sequence[Kernel]: ...

    def terms(self, kernel: int, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cost of one kernel, shape ``(k,)``, at ``lengths`` of shape ``(k, axes)``."""
        ...


class DeviceCost(AdditiveCost, Protocol):
    """What a device takes for one base graph under any plan, and the widths that it rewards."""

    @property
    def unit(self) -> str:
        """``s`` for seconds; an analytic device without a clock counts other things."""
        ...

    def useful(self, axis: int) -> NDArray[np.int64]:
        """Return the lengths of an axis worth considering, ascending, the full one included.

        They are the right ends of the stairs that the device shows: a length between two of them
        costs as much as the next one or more.
        """
        ...


class Prunable(Protocol):
    """A base graph and its plans, each given by the classes to keep, shape ``(count,)``."""

    @property
    def channels(self) -> Channels: ...

    @property
    def groups(self) -> Sequence[Group]: ...

    @property
    def symbols(self) -> Mapping[str, int]:
        """Sizes of symbolic dimensions; others count as 1."""
        ...

    @property
    def feeds(self) -> Arrays:
        """One array per graph input."""
        ...

    def write(self, keep: NDArray[np.bool_], path: Path) -> None:
        """Write the graph compacted by a plan to a model file."""
        ...


class DeviceModel(Protocol):
    """What the planner knows about the hardware that will run the model."""

    @property
    def name(self) -> str: ...

    def align(self) -> int:
        """Return the channel multiple that the device rewards."""
        ...

    def costs(self, base: Prunable, log: Callable[[str], None]) -> DeviceCost:
        """Return what the base graph takes under any plan; this may measure for a minute or two.

        Raises IrpruneError where the device cannot be measured.
        """
        ...


@runtime_checkable
class HostDevice(DeviceModel, Protocol):
    """A device at hand: models can be timed on it."""

    @property
    def threads(self) -> int: ...

    @property
    def provider(self) -> str:
        """What runs models there: a name as `BenchSettings` takes it."""
        ...


class Calibration(Protocol):
    """Sample inputs for criteria that look at activations."""

    def batches(self) -> Iterator[Arrays]:
        """Yield feeds: one array per graph input, with the batch on its first axis."""
        ...
