"""Objectives: lines, TOML and JSON, contradictions at their place, and what they decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError, SpecError
from irprune.frontends.specs.document import Text
from irprune.frontends.specs.objective import (
    RELATIONS,
    Constraint,
    Objective,
    parse_objective,
    read_objective,
    shown_size,
)

FIGURE = "# Example:\nmin ModelSize\nconstraint Accuracy > 0.8\n"
WANTED = Objective("min", "ModelSize", (Constraint("Accuracy", ">", 0.8),))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.txt", FIGURE),
        ("o", "constraint Accuracy>80% # tight\n\n\tmin  ModelSize"),
        ("o.toml", 'min = "ModelSize"\nconstraints = ["Accuracy > 0.8"]'),
        ("o.json", '{"min": "ModelSize", "constraints": ["Accuracy > 0.8"]}'),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_objective(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [
        ("Latency <= 12ms", 0.012, False),
        ("Latency <= 1.5 s", 1.5, False),
        ("Memory < 80MB", 80e6, False),
        ("Memory < 1 KiB", 1024, False),
        ("MACs < 300M", 300e6, False),
        ("ModelSize <= 25.6M", 25.6e6, False),
        ("ModelSize <= 30%", 0.3, True),
        ("Latency <= 50 %", 0.5, True),
        ("Accuracy >= 1e-1", 0.1, False),
    ],
)
def test_units(text: str, value: float, relative: bool) -> None:
    (found,) = parse_objective(Text(f"min MACs\nconstraint {text}")).constraints
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.relative is relative


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("min ModelSize\nmax ModelSize", (2, 5), "contradicts `min ModelSize`"),
        ("min ModelSize\nmin Latency", (2, 5), "second goal"),
        ("constraint Accuracy > 0.9\nconstraint Accuracy < 0.8", (2, 12), "contradicts"),
        ("constraint Accuracy >= 0.8\nconstraint Accuracy < 80%", (2, 12), "contradicts"),
        ("constraint ModelSize < 10%\nconstraint ModelSize > 20%", (2, 12), "contradicts"),
        ("constraint Accuracy > 1", (1, 23), "can never hold"),
        ("constraint MACs < 0", (1, 19), "can never hold"),
        ("constraint Accuracy > 80", (1, 23), "write 80%"),
        ("constraint ModelSize < 0.5", (1, 24), "write 50%"),
        ("constraint Latency < 12", (1, 24), "needs a unit; known: us, ms, s, %"),
        ("constraint Memory < 12ms", (1, 23), "`ms` is no unit of Memory"),
        ("constraint Accuracy = 0.8", (1, 21), "unknown relation `=`"),
        ("constraint Accuracy => 0.8", (1, 21), "unknown relation `=>`"),
        ("constraint Accuracy > -1", (1, 23), "no number"),
        ("constraint Accuracy > high", (1, 23), "no number"),
        ("constraint MACs < 1e999", (1, 19), "too large"),
        ("constraint MACs < 1 M M", (1, 23), "unexpected `M`"),
        ("constraint Accuracy >", (1, 22), "expected a value"),
        ("constraint", (1, 11), "expected a metric"),
        ("min", (1, 4), "takes one metric"),
        ("min ModelSize MACs", (1, 15), "takes one metric"),
        ("min Modelsize", (1, 5), "did you mean `ModelSize`"),
        ("mn ModelSize", (1, 1), "unexpected `mn`"),
        ("min ModelSize; max Accuracy", (1, 14), "unexpected `;`"),
        ("", (1, 1), "no goal"),
    ],
)
def test_errors_point_at_the_spot(text: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_objective(Text(text, "o"))
    message = str(caught.value)
    assert message.startswith(f"o:{place[0]}:{place[1]}: ")
    assert reason in message
    assert message.splitlines()[-1] == " " * (place[1] + 1) + "^"


@pytest.mark.parametrize(
    ("form", "text", "place", "reason"),
    [
        ("toml", 'min = "Size"', (1, 7), "unknown metric"),
        ("toml", 'min = "MACs"\nmax = "MACs"', (2, 7), "contradicts"),
        (
            "toml",
            'min = "MACs"\nconstraints = ["Accuracy > 0.9", "Accuracy < 0.8"]',
            (2, 35),
            "contr",
        ),
        ("toml", 'min = "MACs"\nconstraints = ["Accuracy > x"]', (2, 28), "no number"),
        ("toml", 'min = "MACs"\nconstraints = [3]', (2, 16), "is a text"),
        ("toml", 'min = "MACs"\nconstraint = []', (2, 14), "did you mean `constraints`"),
        ("json", '{"min": 3}', (1, 9), "name of a metric"),
        ("json", '{"min": "MACs",\n"constraints": "MACs < 3"}', (2, 16), "list of texts"),
    ],
)
def test_errors_in_documents(form: str, text: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        parse_objective(Text(text), form)
    assert (caught.value.line, caught.value.column) == place


def test_satisfied_and_better() -> None:
    objective = parse_objective(Text(FIGURE + "constraint ModelSize <= 50%"))
    full = {"ModelSize": 100.0}
    small = {"ModelSize": 30.0, "Accuracy": 0.81}
    large = {"ModelSize": 50.0, "Accuracy": 0.9}
    bad, worse = {"ModelSize": 20.0, "Accuracy": 0.8}, {"ModelSize": 10.0, "Accuracy": 0.5}
    assert objective.satisfied(small, full) and objective.satisfied(large, full)
    assert not objective.satisfied(bad, full)
    assert objective.better(small, large, full) and not objective.better(large, small, full)
    assert not objective.better(small, small, full)
    ranked = sorted([worse, bad, large, small], key=lambda each: objective.key(each, full))
    assert ranked == [small, large, bad, worse]
    assert objective.violated({"ModelSize": 60.0}, full) == (objective.constraints[1],)
    with pytest.raises(IrpruneError, match="the ModelSize of the full model"):
        objective.satisfied(small)
    with pytest.raises(IrpruneError, match="the Accuracy of a network"):
        objective.satisfied({"ModelSize": 3.0})
    nan = float("nan")
    assert not objective.satisfied({"ModelSize": 30.0, "Accuracy": nan}, full)


def test_exploration_starts_where_the_papers_start() -> None:
    sizes = [30, 10, 20, 10]
    assert WANTED.order(sizes) == [1, 3, 2, 0]
    assert Objective("max", "Accuracy").order(sizes) == [0, 2, 1, 3]
    assert WANTED.first_is_best and not Objective("max", "Accuracy").first_is_best


def test_sizes_for_people() -> None:
    assert shown_size(7_680_000, 25_600_000) == "7,680,000 variables (30.0% of the full model)"


@given(
    st.sampled_from(["ModelSize", "MACs", "Latency", "Memory", "Accuracy"]),
    st.lists(st.tuples(st.sampled_from(RELATIONS), st.integers(1, 5)), max_size=3),
)
def test_contradictory_exactly_where_no_value_fulfils_all(
    metric: str, rows: list[tuple[str, int]]
) -> None:
    unit = "" if metric == "Accuracy" else "%"
    scale = 10 if metric == "Accuracy" else 1
    lines = [f"constraint {metric} {relation} {n / scale}{unit}" for relation, n in rows]
    tests = {
        "<": lambda x, n: x < n,
        ">": lambda x, n: x > n,
        "<=": lambda x, n: x <= n,
        ">=": lambda x, n: x >= n,
    }
    possible = any(
        all(tests[relation](half / 2, n) for relation, n in rows) for half in range(1, 13)
    )
    source = Text("\n".join([f"min {metric}", *lines]))
    try:
        found = parse_objective(source)
    except SpecError as error:
        assert "contradicts" in str(error) and not possible
        return
    assert possible
    assert parse_objective(Text(str(found))) == found


PIECES = st.sampled_from(
    [
        *" \n\t<>=#%\"'[]",
        "min",
        "max",
        "constraint",
        "Accuracy",
        "MACs",
        "0.8",
        "12ms",
        "constraints",
    ]
)


@pytest.mark.parametrize("form", ["text", "toml", "json"])
@given(pieces=st.lists(PIECES, max_size=25) | st.lists(st.characters(), max_size=20))
def test_any_text_is_read_or_refused(form: str, pieces: list[str]) -> None:
    try:
        parse_objective(Text("".join(pieces)), form)
    except IrpruneError as error:
        assert str(error)
