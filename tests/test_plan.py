"""Plans: the file format, composition, and files that are no plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.plan import Mask, Plan


def _mask(*kept: int, size: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[list(kept)] = True
    return mask


def _same(left: Plan, right: Plan) -> bool:
    return json.dumps(left.to_json()) == json.dumps(right.to_json())


masks = st.lists(st.booleans(), min_size=1, max_size=20).filter(any)
axes = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.dictionaries(st.integers(0, 3), masks, min_size=1, max_size=2),
    max_size=4,
)


@given(axes=axes, sha=st.none() | st.just("ab" * 32))
def test_a_plan_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    axes: dict[str, dict[int, list[bool]]],
    sha: str | None,
) -> None:
    plan = Plan(
        {name: {k: np.array(m) for k, m in entry.items()} for name, entry in axes.items()},
        "prune{macs=0.5}, compact",
        "net",
        sha,
        "0123",
        "normalize",
    )
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    read = Plan.load(path)
    assert _same(plan, read)
    assert all(
        np.array_equal(read.axes[name][k], mask)
        for name, entry in plan.axes.items()
        for k, mask in entry.items()
    )
    assert bool(read) == bool(axes)


def test_the_format_is_the_public_one() -> None:
    plan = Plan(
        {"b": {1: _mask(0, 2, size=3)}, "a": {0: _mask(1, size=2)}}, "p", "m", "s", "h", "n"
    )
    assert plan.to_json() == {
        "format": "irprune-plan",
        "version": 1,
        "pipeline": "p",
        "model": {"name": "m", "sha256": "s"},
        "base": {"structure": "h", "pipeline": "n"},
        "axes": {
            "a": {"0": {"size": 2, "kept": [[1, 2]]}},
            "b": {"1": {"size": 3, "kept": [[0, 1], [2, 3]]}},
        },
    }
    assert list(plan.to_json()["axes"]) == ["a", "b"]
    assert not Plan.empty()


@given(data=st.data(), size=st.integers(1, 12))
def test_two_plans_compose_into_one_over_the_base(data: st.DataObject, size: int) -> None:
    first = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any)))
    left = int(first.sum())
    second = np.array(data.draw(st.lists(st.booleans(), min_size=left, max_size=left).filter(any)))
    whole = Plan({"w": {0: first}}).then(Plan({"w": {0: second}}))
    values = np.arange(size)
    assert np.array_equal(values[whole.axes["w"][0]], values[first][second])


def test_composition_leaves_both_parts_alone() -> None:
    first = Plan({"w": {0: _mask(0, 2, 3, size=4)}}, "one", "net", "sha", "hash", "normalize")
    second = Plan({"w": {0: _mask(1, size=3), 1: _mask(0, size=2)}, "v": {0: _mask(0, size=2)}})
    whole = first.then(second)
    assert whole.axes["w"][0].tolist() == [False, False, True, False]
    assert whole.axes["w"][1].tolist() == [True, False]
    assert whole.axes["v"][0].tolist() == [True, False]
    assert first.axes["w"][0].tolist() == [True, False, True, True]
    assert list(first.axes) == ["w"]
    assert list(first.axes["w"]) == [0]
    assert second.axes["w"][0].tolist() == [False, True, False]
    assert (whole.model_name, whole.model_sha256) == ("net", "sha")


def _good() -> dict[str, Any]:
    return Plan({"w": {0: _mask(1, size=3)}}, "p", "m", None, "h", "n").to_json()


def _with(**changes: Any) -> dict[str, Any]:
    return {**_good(), **changes}


def _entry(**changes: Any) -> dict[str, Any]:
    return _with(axes={"w": {"0": {"size": 3, "kept": [[1, 2]], **changes}}})


@pytest.mark.parametrize(
    "data",
    [
        _with(format="other"),
        _with(version=2),
        {k: v for k, v in _good().items() if k != "base"},
        {k: v for k, v in _good().items() if k != "pipeline"},
        _with(model="m"),
        _with(axes=[]),
        _with(axes={"w": {"first": {"size": 3, "kept": [[1, 2]]}}}),
        _with(axes={"w": {"-1": {"size": 3, "kept": [[1, 2]]}}}),
        _with(axes={"w": []}),
        _entry(size=0),
        _entry(size=-3),
        _entry(size=1 << 40),
        _entry(size="many"),
        _entry(kept=[[0, 4]]),
        _entry(kept=[[2, 1]]),
        _entry(kept=[[-1, 2]]),
        _entry(kept=[[1, 3], [0, 1]]),
        _entry(kept=[[0, 2], [1, 3]]),
        _entry(kept=[[0, 1, 2]]),
        _entry(kept=[["a", "b"]]),
        _entry(kept=[[0.0, 1.5]]),
        _entry(kept=None),
        _entry(per=1),
    ],
)
def test_a_malformed_plan_is_refused_with_its_file(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(IrpruneError, match="not a usable plan file") as raised:
        Plan.load(path)
    assert str(raised.value).startswith(str(path))
    assert "irprune-plan version 1" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"plan"', '{"format": NaN', "\0"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(IrpruneError, match="plan"):
        Plan.load(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00plan")
    with pytest.raises(IrpruneError, match="cannot read the plan"):
        Plan.load(path)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="cannot read the plan"):
        Plan.load(tmp_path / "none.json")


def test_a_plan_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    Plan({"w": {0: _mask(1, size=3)}}).save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        Plan({"w": {0: None}}).save(path)  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(IrpruneError, match="cannot write here"):
        Plan().save(tmp_path / "nowhere" / "plan.json")
