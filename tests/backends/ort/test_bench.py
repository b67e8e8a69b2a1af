import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irprune import timing
from irprune.backends.ort import bench
from irprune.backends.ort.bench import OrtBencher
from irprune.backends.ort.child import Child
from irprune.backends.ort.machine import Moment
from irprune.errors import IrpruneError
from irprune.protocols import Bencher, Benchmark, BenchSettings, Estimate

Write = Callable[[str, str], Path]

SMALL = "g (float[N, 4] x) => (float[N, 4] y) {y = Neg(x)}"
LARGE = """g (float[N, 4] x) => (float[N, 4] y) {
    n = Constant<value = int64 {2000}>()
    true = Constant<value = bool {1}>()
    y = Loop(n, true, x) <
        body = step (int64 i, bool go, float[N, 4] a) => (bool on, float[N, 4] c) {
            on = Identity(go)
            c = Neg(a)
        }
    >
}"""
FEEDS = {"x": np.ones((2, 4), np.float32)}


FEW = BenchSettings(rounds=3, processes=1, warmup=1)


def run(paths: list[Path], settings: BenchSettings = FEW) -> Benchmark:
    bencher: Bencher = OrtBencher()
    return bencher.bench(paths, FEEDS, settings)


def spy(monkeypatch: pytest.MonkeyPatch, before: Callable[[Child, str, str], None]) -> None:
    """Call `before(child, operation, model file name)` ahead of every request."""

    class Spied(Child):
        def request(self, message: dict[str, Any], *args: Any, **options: Any) -> Any:
            before(self, message["op"], options["file"].name)
            return super().request(message, *args, **options)

    monkeypatch.setattr(bench, "Child", Spied)


def test_rows(write: Write) -> None:
    paths = [write("small.onnx", SMALL), write("large.onnx", LARGE)]
    found = run(paths)
    assert found.rounds == 3
    assert [row.path for row in found.rows] == [str(path) for path in paths]
    for row, path in zip(found.rows, paths, strict=True):
        assert row.error is None
        assert len(row.samples_s) == 3
        assert row.latency is not None
        assert row.latency.value == sorted(row.samples_s)[1]
        assert 0 < row.latency.low <= row.latency.value <= row.latency.high
        assert row.disk_bytes == path.stat().st_size
        assert row.nodes["cpu"] >= 1
    small, large = found.rows
    assert small.ratio == Estimate(1, 1, 1)
    assert large.ratio is not None
    pairs = zip(small.samples_s, large.samples_s, strict=True)
    assert large.ratio.value == sorted(b / a for a, b in pairs)[1] > 5


def test_every_round_times_each_model_once_in_changing_order(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, str]] = []
    spy(monkeypatch, lambda child, op, name: order.append((op, name)))
    names = ["a", "b", "c"]
    run([write(name, SMALL) for name in names], BenchSettings(rounds=40, processes=1, warmup=0))
    assert [name for op, name in order if op == "load"] == names
    times = [name for op, name in order if op == "time"]
    rounds = [tuple(times[k : k + 3]) for k in range(0, 120, 3)]
    assert all(sorted(each) == names for each in rounds)
    assert len(set(rounds)) == 6
    assert all(second == first[::-1] for first, second in batched(rounds))
    followers = Counter(pairwise(times))
    assert min(followers[a, b] for a in names for b in names if a != b) > 10


def test_processes_share_the_rounds(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str, str]] = []
    spy(monkeypatch, lambda child, op, name: seen.append((child.pid, op, name)))
    found = run([write("a", SMALL), write("b", LARGE)], BenchSettings(rounds=7, processes=3))
    assert found.rounds == 7
    for name in ("a", "b"):
        pids = [pid for pid, op, model in seen if (op, model) == ("load", name)]
        assert len(set(pids)) == 3
        assert [seen.count((pid, "time", name)) for pid in pids] == [2, 2, 3]
    small, large = found.rows
    parts = [np.array(row.samples_s)[cut] for row in (small, large) for cut in CUTS]
    medians = [np.median(b / a) for a, b in zip(parts[:3], parts[3:], strict=True)]
    assert large.ratio is not None
    assert large.ratio.value == pytest.approx(np.mean(medians))


@pytest.mark.parametrize(("precision", "count"), [(1e9, 3), (1e-9, 5)])
def test_more_processes_follow_until_the_whole_is_precise(
    write: Write, monkeypatch: pytest.MonkeyPatch, precision: float, count: int
) -> None:
    """Every set stops after half of its part of the limit; the last part is never begun."""
    loads: list[str] = []
    spy(monkeypatch, lambda child, op, name: loads.append(name) if op == "load" else None)
    clock = iter(float(k) for k in range(1000))

    def moment(pids: object) -> Moment:
        return Moment(next(clock), None, None, 0.0, None)

    def two(lanes: list[Any], settings: BenchSettings) -> int:
        for lane in [*lanes, *lanes]:
            lane.sample()
        return 2

    monkeypatch.setattr(bench.machine.Moment, "now", moment)
    monkeypatch.setattr(bench, "_rounds", two)
    settings = BenchSettings(processes=3, precision=precision, limit_s=6, warmup=0)
    found = run([write("a", SMALL), write("b", SMALL)], settings)
    assert loads == ["a", "b"] * count
    assert found.rounds == 2 * count


CUTS = (slice(0, 2), slice(2, 4), slice(4, 7))


def test_a_model_that_failed_is_not_started_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    spy(monkeypatch, lambda child, op, name: loads.append(name) if op == "load" else None)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a model")
    first, second = run([broken, write("a", SMALL)], BenchSettings(rounds=3, processes=3)).rows
    assert loads == ["broken", "a", "a", "a"]
    assert first.error is not None
    assert second.latency is not None
    assert second.ratio is None


def batched(rounds: list[tuple[str, ...]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return list(zip(rounds[::2], rounds[1::2], strict=True))


def test_a_broken_model_stays_in_its_row(write: Write, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    first, second, third = run([write("a", SMALL), broken, write("b", SMALL)]).rows
    assert [row.error is None for row in (first, second, third)] == [True, False, True]
    assert "protobuf" in str(second.error).lower()
    assert (second.latency, second.ratio, second.samples_s) == (None, None, ())
    assert len(third.samples_s) == 3
    assert third.ratio is not None


def test_the_first_model_failed(write: Write, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    first, second = run([broken, write("a", SMALL)]).rows
    assert first.error is not None
    assert second.error is None
    assert second.latency is not None
    assert second.ratio is None


def test_a_crash_in_the_second_round(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def crash(child: Child, op: str, name: str) -> None:
        seen.append((op, name))
        if seen[-1] == ("time", "b") and seen.count(("time", "b")) == 2:
            os.kill(child.pid, signal.SIGKILL)

    spy(monkeypatch, crash)
    rows = run([write("a", SMALL), write("b", SMALL), write("c", SMALL)]).rows
    assert [len(row.samples_s) for row in rows] == [3, 1, 3]
    assert "SIGKILL (signal 9)" in str(rows[1].error)
    assert rows[1].latency is None
    assert rows[2].ratio is not None


def test_rounds_end_at_the_precision_or_at_the_limit(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(self: Child, message: dict[str, Any], *args: Any, **options: Any) -> Any:
        known = {"about": {"provider": "CPUExecutionProvider", "version": "0"}}
        known |= {"load": {"nodes": {}, "note": ""}, "memory": {"bytes": None}}
        return known.get(message["op"]) or {"seconds": noise.lognormal(0, 0.1)}, {}

    monkeypatch.setattr(Child, "request", reply)
    paths = [write("a", SMALL), write("b", SMALL)]
    counts = []
    for precision in (1.0, 0.05, 0.03):
        noise = np.random.default_rng(0)
        found = run(paths, BenchSettings(precision=precision, limit_s=1e6, processes=1))
        assert found.rows[1].ratio is not None
        assert timing.width(found.rows[1].ratio) <= precision
        counts.append(found.rounds)
    assert counts[0] == bench.MIN_ROUNDS
    assert counts == sorted(set(counts))
    assert run(paths, BenchSettings(precision=1e-9, limit_s=0.01, processes=1)).rounds < counts[-1]


def test_feeds_by_position(write: Write) -> None:
    other = write("other", SMALL.replace(" x)", " image)").replace("(x)", "(image)"))
    first, second = run([write("a", SMALL), other]).rows
    assert first.notes == ()
    assert second.error is None
    assert second.notes == ("inputs matched by position: image = x",)
    wrong = write("wrong", SMALL.replace("4", "5"))
    assert "its inputs are x: float['N', 5]; given are x: float[2, 4]" in str(
        run([write("a", SMALL), wrong]).rows[1].error
    )


def test_providers(write: Write) -> None:
    path = write("a", SMALL)
    for name in ("CPU", "cpu", "CPUExecutionProvider", "cpuexecutionprovider"):
        found = run([path], BenchSettings(rounds=1, provider=name))
        assert found.environment["provider"] == "CPUExecutionProvider"
    with pytest.raises(IrpruneError, match="has no provider warp; it has .*cpu"):
        run([path], BenchSettings(rounds=1, provider="warp"))


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 0},
        {"warmup": -1},
        {"threads": 0},
        {"precision": 0},
        {"limit_s": 0},
        {"processes": 0},
    ],
)
def test_senseless_numbers(settings: dict[str, Any]) -> None:
    with pytest.raises(IrpruneError, match="rounds >= 1"):
        run([], BenchSettings(**settings))
