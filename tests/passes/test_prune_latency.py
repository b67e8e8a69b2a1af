"""`prune` under joint targets and under a latency that is measured, on a device that is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import Net, check_equal, compacted, value_of

from irprune import additive, api
from irprune.analyses import ChannelClasses, Groups
from irprune.cost import CostModel
from irprune.errors import CheckFailed, IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.choice.budgeted import total
from irprune.passes.choice.candidates import Candidates
from irprune.passes.prune import Prune
from irprune.plan import Plan
from irprune.protocols import (
    USUAL_BENCH,
    Arrays,
    Benchmark,
    BenchSettings,
    Estimate,
    Kernel,
    LatencyRow,
    Prunable,
)


def _net(seed: int = 0) -> Model:
    """A residual block between two convolutions, then a linear classifier."""
    net = Net(seed=seed)
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 8), 3, 48, 3, 3, name="a"))
    y = net.op("Relu", net.conv(x, 48, 80, name="b"))
    x = net.op("Add", x, net.conv(y, 80, 48, name="c"))
    x = net.op("Relu", net.conv(x, 48, 64, 3, 3, name="d"))
    net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 64, 10, "y")
    return net.model()


class Stairs:
    """Costs a second per MAC, all lengths rounded up to a step."""

    unit: str = "s"

    def __init__(self, base: Prunable, step: int, error: float) -> None:
        self._macs = additive.macs(CostModel(base.channels.graph), base.channels)
        self._step, self._error = step, error
        self.whole = base.channels.lengths(np.ones(base.channels.count, np.bool_))
        self.constant = self._macs.constant
        self.kernels: Sequence[Kernel] = self._macs.kernels

    def terms(self, kernel: int, lengths: np.ndarray) -> np.ndarray:
        terms = self._macs.terms(kernel, -(-lengths // self._step) * self._step)
        return np.asarray(terms * (1 + self._error * (kernel % 2)))

    def useful(self, axis: int) -> np.ndarray:
        whole = int(self.whole[axis])
        return np.union1d(np.arange(self._step, whole + 1, self._step), [whole])


@dataclass
class Device:
    """Predicts by stairs; every other kernel costs more than it says by a factor."""

    step: int = 4
    error: float = 0.0
    name: str = "made up"
    threads: int = 1
    provider: str = "cpu"

    def align(self) -> int:
        return self.step

    def costs(self, base: Prunable, log: Callable[[str], None]) -> Stairs:
        return Stairs(base, self.step, self.error)


@dataclass
class Clock:
    """A `Bencher` that reckons: MACs with rounded widths, and a part that no pruning removes."""

    step: int = 4
    fixed: float = 0.0
    crash: Callable[[int], bool] = lambda times: False
    calls: list[BenchSettings] = field(default_factory=list)

    def bench(
        self, models: Sequence[Path], feeds: Arrays, settings: BenchSettings = USUAL_BENCH
    ) -> Benchmark:
        self.calls.append(settings)
        seconds = [self._seconds(path) for path in models]
        rows = [
            LatencyRow(
                str(path), 0, latency=_sure(s), ratio=_sure((s + whole) / (seconds[0] + whole))
            )
            for path, s in zip(models, seconds, strict=True)
            for whole in [self.fixed * seconds[0]]
        ]
        if len(models) > 1 and self.crash(len(self.calls)):
            rows[1] = LatencyRow(str(models[1]), 0, error="SIGFPE")
        return Benchmark(tuple(rows), 1, (), {})

    def _seconds(self, path: Path) -> float:
        model = CostModel(api.load(path).ir.graph)

        def size(value: Any, axis: int) -> int:
            length = model.full_size(value, axis)
            return -(-length // self.step) * self.step if length > 10 else length

        return float(sum(rule.macs(node, size) for node, rule in model.busy))


def _sure(value: float) -> Estimate:
    return Estimate(value, value * 0.999, value * 1.001)


def _context(clock: Clock, **device: Any) -> Context:
    return Context(bencher=lambda: clock, device=Device(**device))


def _prune(model: Model, context: Context | None = None, **options: Any) -> dict[str, Any]:
    return Prune(**options).run(model, context or Context())


def _plan(model: Model) -> Plan:
    assert model.pending is not None
    return model.pending


def _widths(model: Model) -> dict[str, int]:
    axes = _plan(model).axes
    return {
        name: int(axes[f"{name}.w"][0].sum())
        if 0 in axes.get(f"{name}.w", {})
        else int(value_of(model, f"{name}.w").shape[0])
        for name in "abcd"
    }


# Joint targets that are counted


@pytest.mark.parametrize("worth", ["log", "sum"])
@pytest.mark.parametrize(
    "targets",
    [
        {"macs": 0.5, "params": 0.6},
        {"macs": 0.7, "memory": 0.6},
        {"memory": 0.5},
        {"macs": "150k", "params": "6k", "memory": "60kB"},
    ],
)
def test_all_targets_hold_and_little_room_is_left(worth: str, targets: dict[str, Any]) -> None:
    model, context = _net(), Context()
    full = CostModel(model.ir.graph).full()
    report = _prune(model, context, criterion="l2", worth=worth, **targets)
    costs = CostModel(model.ir.graph).of_plan(_plan(model))
    reached = {"macs": costs.macs, "params": costs.params, "memory": costs.memory_bytes}
    whole = {"macs": full.macs, "params": full.params, "memory": full.memory_bytes}
    amounts = {"150k": 150e3, "6k": 6e3, "60kB": 60e3}
    bounds = {w: amounts[t] if isinstance(t, str) else t * whole[w] for w, t in targets.items()}
    assert all(reached[what] <= bound for what, bound in bounds.items())
    assert max(reached[what] / bound for what, bound in bounds.items()) > 0.97
    assert report["reached"] == {w: pytest.approx(reached[w] / whole[w]) for w in whole}
    selection = context.report["selection"]
    assert 0 < selection["kept_importance"] < 1
    assert 0 < selection["kept_l1"] < 1
    assert 0 <= selection["optimality_gap"] < 0.1
    assert {row["group"]: row["kept"] for row in selection["widths"]} == {
        f"{name}.w": width for name, width in _widths(model).items() if name != "c"
    }
    check_equal(model, compacted(model, _plan(model)), _plan(model), 0)


def test_targets_that_cannot_be_met_together_tell_the_least() -> None:
    with pytest.raises(
        IrpruneError, match=r"macs, params cannot be reached together: the least is"
    ):
        _prune(_net(), macs=0.5, params=0.01, min=16)


def test_worth_by_logarithm_spares_every_group() -> None:
    least = {}
    for worth in ("log", "sum"):
        model = _net()
        _prune(model, macs=0.4, memory=0.9, worth=worth)
        whole = {"a": 48, "b": 80, "c": 48, "d": 64}
        least[worth] = min(width / whole[name] for name, width in _widths(model).items())
    assert least["log"] > least["sum"]


def test_the_device_says_which_widths_are_worth_having() -> None:
    model = _net()
    _prune(model, _context(Clock()), macs=0.5, device="auto")
    assert all(width % 4 == 0 for width in _widths(model).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "latency": 0.5}, "ratio goes with no other target; given: ratio, latency"),
        ({"latency": 0}, r"latency=0 must lie in \(0, 1\]"),
        ({"latency": "12"}, 'latency="12" is no number with a unit: s, ms or us'),
        ({"memory": "80"}, 'memory="80" is no number with a unit: B, kB'),
        ({"memory": "0MB"}, 'memory="0MB" must be more than 0'),
        ({"latency": "12MB"}, 'latency="12MB" is no number'),
        ({"latency": "least"}, "latency=least goes with one of macs and params"),
        ({"latency": "least", "macs": 0.5, "params": 0.5}, "latency=least goes with one of"),
        ({"macs": "least"}, 'macs="least" is no number'),
    ],
)
def test_bad_targets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        Prune(**options)


def test_latency_needs_a_device_and_a_clock() -> None:
    with pytest.raises(IrpruneError, match="a latency target needs a device"):
        _prune(_net(), latency=0.5)
    with pytest.raises(IrpruneError, match="a latency target needs onnxruntime"):
        _prune(_net(), Context(device=Device()), latency=0.5)


# Latency that is measured


@pytest.mark.parametrize("fixed", [0.0, 0.3])
@pytest.mark.parametrize("error", [0.0, 0.6])
@pytest.mark.parametrize("target", [0.8, 0.5])
def test_a_wrong_prediction_is_corrected_by_measuring(
    fixed: float, error: float, target: float
) -> None:
    model, clock = _net(), Clock(fixed=fixed)
    context = _context(clock, error=error)
    _prune(model, context, latency=target)
    latency = context.report["selection"]["latency"]
    assert latency["measured"][0] == pytest.approx(target, abs=0.015)
    assert latency["within_tolerance"]
    assert latency["measured"] in [step["measured"] for step in latency["steps"]]
    assert latency["device"] == "made up"
    check_equal(model, compacted(model, _plan(model)), _plan(model), 0)


def test_widths_too_coarse_for_the_target_give_a_faster_model() -> None:
    lines: list[str] = []
    context = Context(bencher=lambda: Clock(step=16), device=Device(16), log=lines.append)
    _prune(_net(), context, latency=0.83, only=("d.w",))
    latency = context.report["selection"]["latency"]
    assert not latency["within_tolerance"]
    assert latency["measured"][0] < 0.8
    assert any("no widths found come nearer" in line for line in lines)


@dataclass
class Unsteady(Clock):
    """Errs by some per cent, and knows it; less in a long run."""

    seed: int = 0

    def bench(
        self, models: Sequence[Path], feeds: Arrays, settings: BenchSettings = USUAL_BENCH
    ) -> Benchmark:
        sure = super().bench(models, feeds, settings)
        spread = 0.03 if settings.precision > 0.01 else 0.005
        err = np.random.default_rng((self.seed, len(self.calls))).normal(1, spread)
        return _scaled(sure, err, spread)


@dataclass
class Flattering(Clock):
    """Tells less than the truth, without a doubt, but not in a long run."""

    def bench(
        self, models: Sequence[Path], feeds: Arrays, settings: BenchSettings = USUAL_BENCH
    ) -> Benchmark:
        sure = super().bench(models, feeds, settings)
        return _scaled(sure, 0.9, 0.001) if settings.precision > 0.01 else sure


def _scaled(found: Benchmark, factor: float, spread: float) -> Benchmark:
    """The same with all ratios but the first times a factor, and intervals of a relative width."""
    first, *others = found.rows
    rows = [
        replace(row, ratio=row.ratio and _about(row.ratio.value * factor, spread)) for row in others
    ]
    return replace(found, rows=(first, *rows))


def _about(value: float, spread: float) -> Estimate:
    return Estimate(value, value * (1 - 2 * spread), value * (1 + 2 * spread))


@pytest.mark.parametrize("seed", range(12))
def test_a_measurement_that_errs_does_not_end_the_search(seed: int) -> None:
    model, lines = _net(), list[str]()
    context = Context(bencher=lambda: Unsteady(seed=seed), device=Device(step=8), log=lines.append)
    _prune(model, context, latency=0.6)
    latency = context.report["selection"]["latency"]
    assert latency["within_tolerance"], lines
    assert latency["measured"][0] == pytest.approx(0.6, abs=0.015)


def test_what_is_taken_where_widths_are_too_coarse_was_measured_for_longer() -> None:
    context = Context(bencher=lambda: Flattering(step=16), device=Device(16))
    _prune(_net(), context, latency=0.83, only=("d.w",))
    latency = context.report["selection"]["latency"]
    same = [s for s in latency["steps"] if s["predicted"] == latency["predicted"]]
    assert len(same) > 1
    assert latency["measured"] == same[-1]["measured"]
    assert latency["measured"][0] < 0.83


def test_an_amount_is_a_share_of_what_the_original_takes() -> None:
    model, clock = _net(), Clock()
    whole = CostModel(model.ir.graph).full().macs
    context = _context(clock)
    _prune(model, context, latency=f"{0.6 * whole:.0f}s")
    latency = context.report["selection"]["latency"]
    assert latency["target"] == pytest.approx(0.6, abs=0.1)
    assert latency["measured"][0] == pytest.approx(latency["target"], abs=0.015)


def test_a_target_out_of_reach_names_the_nearest_and_keeps_the_record() -> None:
    model, context = _net(), _context(Clock(fixed=3.0))
    with pytest.raises(
        CheckFailed, match=r"latency=0.3 cannot be met: the nearest measured is 0\.7"
    ):
        _prune(model, context, latency=0.3)
    assert model.pending is None
    assert context.report["selection"]["latency"]["steps"]


def test_a_model_that_never_gets_faster_is_refused() -> None:
    """Whatever is removed, nothing is gained: no candidate may be returned as if it were."""

    @dataclass
    class Stubborn(Clock):
        def _seconds(self, path: Path) -> float:
            return 1.0 if "original" in path.name else 1.2

    context = _context(Stubborn())
    with pytest.raises(CheckFailed, match="no candidate is faster than the original"):
        _prune(_net(), context, latency=0.9)


def test_a_candidate_that_crashes_is_a_step_and_not_the_end() -> None:
    model, clock = _net(), Clock(crash=lambda times: times == 1)
    context = _context(clock)
    _prune(model, context, latency=0.6, worth="sum")
    steps = context.report["selection"]["latency"]["steps"]
    assert steps[0]["error"] == "SIGFPE"
    assert steps[0]["measured"] is None
    assert steps[-1]["measured"][0] == pytest.approx(0.6, abs=0.015)


@dataclass
class Gloomy(Device):
    """Predicts that every plan takes a constant more."""

    share: float = 1.0

    def costs(self, base: Prunable, log: Callable[[str], None]) -> Stairs:
        stairs = super().costs(base, log)
        stairs.constant += self.share * total(stairs, stairs.whole)
        return stairs


def test_a_candidate_that_crashes_in_its_long_run_is_not_taken() -> None:
    clock = Clock(fixed=1.0, crash=lambda times: times in (2, 3))
    context = Context(bencher=lambda: clock, device=Gloomy())
    _prune(_net(), context, latency=0.5)
    latency = context.report["selection"]["latency"]
    assert [step["measured"] is None for step in latency["steps"]][:3] == [False, True, True]
    assert latency["measured"][0] == pytest.approx(0.5, abs=0.015)


def test_what_later_steps_stay_near_may_be_the_least_choice() -> None:
    clock = Clock(fixed=1.0, crash=lambda times: times in (2, 3))
    context = Context(bencher=lambda: clock, device=Gloomy(share=2.0))
    _prune(_net(), context, latency=0.6)
    selection = context.report["selection"]
    assert selection["latency"]["steps"][3]["measured"] is not None
    assert selection["latency"]["measured"][0] < 0.6
    assert 0 <= selection["optimality_gap"] <= 1


def test_a_prediction_far_too_gloomy_does_not_lead_back_to_the_original() -> None:
    clock = Clock(fixed=0.3, crash=lambda times: times == 2)
    context = Context(bencher=lambda: clock, device=Gloomy(share=2.0))
    _prune(_net(), context, latency=0.5)
    assert context.report["selection"]["latency"]["measured"][0] == pytest.approx(0.5, abs=0.015)


def test_other_bounds_hold_beside_the_latency() -> None:
    model, context = _net(), _context(Clock())
    _prune(model, context, latency=0.7, params=0.6, worth="sum")
    full = CostModel(model.ir.graph).full().params
    assert CostModel(model.ir.graph).of_plan(_plan(model)).params <= 0.6 * full


def test_the_threads_and_provider_of_the_device_are_measured() -> None:
    clock = Clock()
    _prune(_net(), _context(clock, threads=2), latency=0.6)
    assert {(call.threads, call.provider) for call in clock.calls} == {(2, "cpu")}


# The fastest of a size


@pytest.mark.parametrize("what", ["macs", "params"])
def test_the_fastest_of_a_size_is_faster_than_what_is_worth_most_and_as_large(what: str) -> None:
    found = {}
    for latency in (None, "least"):
        model, context = _net(), _context(Clock(), error=0.6)
        options = {"criterion": "l2", "latency": latency, what: 0.5}
        _prune(model, context, device="auto", **options)
        channels = context.get(ChannelClasses(), model)
        prunable = Candidates.of(model, channels, context.get(Groups(), model), context)
        lengths = channels.lengths(channels.keep_of(_plan(model)))
        found[latency] = total(Stairs(prunable, 4, 0.6), lengths), context.report["selection"]
        check_equal(model, compacted(model, _plan(model)), _plan(model), 0)
    most, fast = found[None], found["least"]
    assert fast[0] < most[0]
    assert 0.485 <= fast[1]["reached"][what] <= 0.5
    assert fast[1]["kept_importance"] <= most[1]["kept_importance"]
    assert fast[1]["latency"]["target"] == "least"
    assert fast[1]["latency"]["measured"][0] < 1


def test_a_fastest_choice_that_is_slower_than_the_original_is_refused() -> None:
    @dataclass
    class Stubborn(Clock):
        def _seconds(self, path: Path) -> float:
            return 1.0 if "original" in path.name else 1.2

    with pytest.raises(CheckFailed, match="slower than the original: 1.2"):
        _prune(_net(), _context(Stubborn()), macs=0.5, latency="least")


def test_the_fastest_choice_on_a_device_that_is_not_at_hand_is_not_measured() -> None:
    context = Context(devices=lambda name: Distant(name))
    _prune(_net(), context, macs=0.5, latency="least", device="distant")
    assert context.report["selection"]["latency"]["measured"] is None


# Devices by name


@dataclass
class Distant:
    """A device that is not at hand: it predicts, and nothing can be timed on it."""

    name: str = "distant"

    def align(self) -> int:
        return 4

    def costs(self, base: Prunable, log: Callable[[str], None]) -> Stairs:
        stairs = Stairs(base, 4, 0.0)
        stairs.unit = "MACs"
        return stairs


def test_a_device_that_is_not_at_hand_is_taken_at_its_word() -> None:
    model, context = _net(), Context(devices=lambda name: Distant(name))
    _prune(model, context, latency=0.5, device="distant")
    latency = context.report["selection"]["latency"]
    assert latency["device"] == "distant"
    assert latency["measured"] is None
    assert 0.45 < latency["predicted"] <= 0.5
    with pytest.raises(IrpruneError, match="has no clock, it counts in MACs"):
        _prune(_net(), context, latency="3ms", device="distant")
