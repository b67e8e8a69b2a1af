import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irprune.backends.ort import bench
from irprune.backends.ort.bench import OrtBencher, ratios
from irprune.backends.ort.child import Child
from irprune.errors import IrpruneError
from irprune.protocols import Bencher, LatencyRow

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


def run(bencher: Bencher, paths: list[Path], rounds: int = 3) -> list[LatencyRow]:
    return bencher.bench(
        paths, FEEDS, rounds=rounds, warmup=1, threads=1, provider="CPUExecutionProvider"
    )


def spy(monkeypatch: pytest.MonkeyPatch, before: Callable[[Child, str, str], None]) -> None:
    """Call `before(child, operation, model file name)` ahead of every request."""

    class Spied(Child):
        def request(self, message: dict[str, Any], *args: Any, **options: Any) -> Any:
            before(self, message["op"], options["file"].name)
            return super().request(message, *args, **options)

    monkeypatch.setattr(bench, "Child", Spied)


def test_rows(write: Write) -> None:
    paths = [write("small.onnx", SMALL), write("large.onnx", LARGE)]
    rows = run(OrtBencher(), paths)
    assert [row.path for row in rows] == [str(path) for path in paths]
    for row in rows:
        assert row.error is None
        assert len(row.samples_s) == 3
        assert row.median_s == sorted(row.samples_s)[1] > 0
    one, ratio = ratios(rows)
    assert one == 1
    assert ratio is not None and ratio > 5


def test_rounds_interleave(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, str]] = []
    spy(monkeypatch, lambda child, op, name: order.append((op, name)))
    run(OrtBencher(), [write("a", SMALL), write("b", SMALL)], rounds=2)
    loads, times = [("load", "a"), ("load", "b")], [("time", "a"), ("time", "b")]
    assert order == loads + 2 * times


def test_a_broken_model_stays_in_its_row(write: Write, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    rows = run(OrtBencher(), [write("a", SMALL), broken, write("b", SMALL)])
    assert [row.error is None for row in rows] == [True, False, True]
    assert "protobuf" in str(rows[1].error).lower()
    assert math.isnan(rows[1].median_s)
    assert rows[1].samples_s == ()
    assert len(rows[2].samples_s) == 3
    first, second, third = ratios(rows)
    assert (first, second) == (1, None)
    assert third is not None


def test_a_crash_in_the_second_round(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def crash(child: Child, op: str, name: str) -> None:
        seen.append((op, name))
        if seen[-1] == ("time", "b") and seen.count(("time", "b")) == 2:
            os.kill(child.pid, signal.SIGFPE)

    spy(monkeypatch, crash)
    rows = run(OrtBencher(), [write("a", SMALL), write("b", SMALL), write("c", SMALL)])
    assert [len(row.samples_s) for row in rows] == [3, 1, 3]
    assert "SIGFPE (signal 8)" in str(rows[1].error)
    assert math.isnan(rows[1].median_s)


def test_ratios_are_medians_of_rounds() -> None:
    def row(*samples: float, error: str | None = None) -> LatencyRow:
        return LatencyRow("m", 0.0, samples, error)

    assert ratios([row(1, 2, 4), row(2, 2, 2)]) == [1, 1]
    assert ratios([row(1, error="dead"), row(2)]) == [None, None]
    assert ratios([row(1), row(error="dead"), row(3)]) == [1, None, 3]
    assert ratios([]) == []


@pytest.mark.parametrize(("rounds", "warmup", "threads"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_senseless_numbers(rounds: int, warmup: int, threads: int) -> None:
    with pytest.raises(IrpruneError, match="rounds >= 1"):
        OrtBencher().bench([], {}, rounds=rounds, warmup=warmup, threads=threads)
