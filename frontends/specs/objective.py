"""The objective of pruning: what to minimise or maximise, and what must hold.

Wootz, section 4 and Figure 3 (b), extended by units and by more metrics:

    objective  = { line } ;
    line       = ( "min" | "max" ) metric | "constraint" metric relation value ;
    metric     = "ModelSize" | "Accuracy" | "Latency" | "MACs" | "Memory" ;
    relation   = "<" | ">" | "<=" | ">=" ;
    value      = number [ unit ] ;

`#` starts a comment. There is one goal and any number of constraints. ModelSize is the number of
variables (the forerunner paper, section 5.1), a percentage of it one of the full model's; so are
percentages of Latency, MACs and Memory. Accuracy is a fraction, `80%` is 0.8.

The same in TOML or JSON: `min = "ModelSize"`, `constraints = ["Accuracy > 0.8", ...]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irprune.errors import IrpruneError
from irprune.frontends.specs.document import Document, Text, decode, parse, read_bytes
from irprune.pipeline.options import choices

Direction = Literal["min", "max"]

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_BINARY = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
UNITS: dict[str, dict[str, float]] = {
    "ModelSize": _COUNT,
    "Accuracy": {"": 1.0, "%": 0.01},
    "Latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    "MACs": _COUNT,
    "Memory": _BYTES | _BINARY,
}
"""The metrics and their units: variables, fraction, seconds, multiply-accumulates, bytes."""
RELATIONS = ("<", ">", "<=", ">=")

_TOKEN = re.compile(r"[ \t\r\f\v]*(?:([A-Za-z]\w*|[<>=!]+|%|[-+]?[0-9.][\w.%+-]*)|(#.*)|(.))?")
_VALUE = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(%|[A-Za-z]*)")


@dataclass(frozen=True)
class Constraint:
    """`metric relation value`, in the metric's own unit or as a fraction of the full model's."""

    metric: str
    relation: str
    value: float
    relative: bool = False
    """True where `value` is a fraction of the full model's metric."""

    def bound(self, full: Mapping[str, float]) -> float:
        """The value to compare with (IrpruneError where the full model's metric is missing)."""
        return (
            self.value * _metric(full, self.metric, "the full model")
            if self.relative
            else self.value
        )

    def holds(self, value: float, full: Mapping[str, float]) -> bool:
        """Whether the metric's `value` fulfils the constraint; NaN fulfils none."""
        bound = self.bound(full)
        match self.relation:
            case "<":
                return value < bound
            case ">":
                return value > bound
            case "<=":
                return value <= bound
            case _:
                return value >= bound

    def __str__(self) -> str:
        if self.relative:
            return f"{self.metric} {self.relation} {self.value * 100:.15g}%"
        unit = {"Latency": "s", "Memory": "B"}.get(self.metric, "")
        return f"{self.metric} {self.relation} {self.value:.15g}{unit}"


@dataclass(frozen=True)
class Objective:
    """One goal and the constraints under which it counts."""

    direction: Direction
    metric: str
    constraints: tuple[Constraint, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.direction} {self.metric}", *(f"constraint {c}" for c in self.constraints)]
        return "\n".join(lines)

    def violated(
        self, metrics: Mapping[str, float], full: Mapping[str, float] | None = None
    ) -> tuple[Constraint, ...]:
        """The constraints that the known `metrics` break; those on unknown ones are left out.

        Before a network is trained its ModelSize and MACs are known: what breaks a constraint then
        need not be trained. `full` has the full model's metrics, for percentages.
        """
        known = [c for c in self.constraints if c.metric in metrics]
        return tuple(c for c in known if not c.holds(metrics[c.metric], full or {}))

    def satisfied(
        self, metrics: Mapping[str, float], full: Mapping[str, float] | None = None
    ) -> bool:
        """Whether every constraint holds (IrpruneError where a metric is missing)."""
        for constraint in self.constraints:
            _metric(metrics, constraint.metric, "a network")
        return not self.violated(metrics, full)

    def key(
        self, metrics: Mapping[str, float], full: Mapping[str, float] | None = None
    ) -> tuple[bool, float, float]:
        """Sorts networks, the best first: the satisfied by the goal, then the others.

        Those that are not satisfied stand in the order of how far, relative to the bounds, they
        are off, then of the goal.
        """
        value = _metric(metrics, self.metric, "a network")
        goal = math.inf if math.isnan(value) else value if self.direction == "min" else -value
        if self.satisfied(metrics, full):
            return (False, 0.0, goal)
        off = 0.0
        for constraint in self.violated(metrics, full):
            bound = constraint.bound(full or {})
            off += abs(metrics[constraint.metric] - bound) / (abs(bound) or 1.0)
        return (True, math.inf if math.isnan(off) else off, goal)

    def better(
        self,
        a: Mapping[str, float],
        b: Mapping[str, float],
        full: Mapping[str, float] | None = None,
    ) -> bool:
        """Whether network `a` is strictly better than `b`."""
        return self.key(a, full) < self.key(b, full)

    @property
    def smallest_first(self) -> bool:
        """Whether exploration starts with the smallest model.

        Wootz, section 6: "In case the MetricName is ModelSize, the best exploration order is to
        start from the smallest model [...] If the MetricName is Accuracy, the best exploration
        order is the opposite". That is for `min ModelSize` and `max Accuracy`; costs grow with the
        model and so does accuracy, so the direction alone decides.
        """
        return self.direction == "min"

    @property
    def first_is_best(self) -> bool:
        """Whether the first satisfied network, in order of exploration, ends it.

        The forerunner paper, section 5.2, step 4: "Stop evaluation of the remaining configurations
        once a satisfying model [...] is found". True only where the goal is the size itself.
        """
        return self.metric == "ModelSize"

    def order(self, sizes: Sequence[float]) -> list[int]:
        """The indices of networks of these model sizes in order of exploration; ties as given."""
        return sorted(range(len(sizes)), key=sizes.__getitem__, reverse=not self.smallest_first)


def shown_size(variables: int, full: int) -> str:
    """A ModelSize for people: the number of variables and the share of the full model."""
    return f"{variables:,} variables ({100 * variables / full:.1f}% of the full model)"


def read_objective(path: Path | str) -> Objective:
    """The objective in a file: `.toml`, `.json`, or else lines of text (IrpruneError)."""
    path = Path(path)
    form = path.suffix[1:] if path.suffix in (".toml", ".json") else "text"
    return parse_objective(decode(read_bytes(path), path), form)


def parse_objective(source: Text, form: str = "text") -> Objective:
    """The objective that a text of `form` (`toml`, `json` or `text`) spells (SpecError)."""
    builder = _Builder(source)
    if form == "text":
        offset = 0
        for line in source.text.split("\n"):
            _line(builder, _words(source, line, offset), offset + len(line))
            offset += len(line) + 1
    else:
        _document(builder, parse(source, form))
    return builder.done()


@dataclass(frozen=True)
class _Word:
    text: str
    offset: int


class _Builder:
    """Collects the goal and the constraints and refuses what contradicts."""

    def __init__(self, source: Text) -> None:
        self.source = source
        self.goal: tuple[Direction, str] | None = None
        self.constraints: list[Constraint] = []

    def add_goal(self, direction: Direction, metric: _Word) -> None:
        _known(self.source, metric)
        if self.goal is not None:
            first = " ".join(self.goal)
            if self.goal[1] == metric.text and self.goal[0] != direction:
                reason = f"`{direction} {metric.text}` contradicts `{first}`"
                raise self.source.error(metric.offset, reason)
            reason = f"a second goal beside `{first}`"
            raise self.source.error(metric.offset, reason, "make one of them a constraint")
        self.goal = (direction, metric.text)

    def add_constraint(self, words: Sequence[_Word], end: int) -> None:
        expected = ("a metric", "a relation", "a value")
        if len(words) < 3:
            mend = "write e.g. constraint Accuracy > 0.8"
            raise self.source.error(end, f"expected {expected[len(words)]}", mend)
        metric, relation, *value = words
        _known(self.source, metric)
        if relation.text not in RELATIONS:
            reason = f"unknown relation `{relation.text}`"
            raise self.source.error(relation.offset, reason, f"known: {', '.join(RELATIONS)}")
        if len(value) > 2:
            raise self.source.error(value[2].offset, f"unexpected `{value[2].text}`")
        number = _Word("".join(word.text for word in value), value[0].offset)
        constraint = _constraint(self.source, metric.text, relation.text, number)
        for other in (c for c in self.constraints if c.metric == metric.text):
            if not _compatible(constraint, other):
                reason = f"`{constraint}` contradicts `{other}`"
                raise self.source.error(metric.offset, reason)
        self.constraints.append(constraint)

    def done(self) -> Objective:
        if self.goal is None:
            mend = "write e.g. min ModelSize"
            raise self.source.error(len(self.source.text), "the objective has no goal", mend)
        return Objective(*self.goal, tuple(self.constraints))


def _words(source: Text, line: str, offset: int) -> list[_Word]:
    """The words of a line that starts at `offset`; a comment ends it."""
    words = []
    for match in _TOKEN.finditer(line):
        if match[3] is not None:
            raise source.error(offset + match.start(3), f"unexpected `{match[3]}`")
        if match[2] is not None:
            break
        if match[1] is not None:
            words.append(_Word(match[1], offset + match.start(1)))
    return words


def _line(builder: _Builder, words: list[_Word], end: int) -> None:
    if not words:
        return
    first, *rest = words
    match first.text:
        case "min" | "max" as direction:
            if len(rest) != 1:
                spot = rest[1].offset if rest else end
                raise builder.source.error(spot, f"`{direction}` takes one metric")
            builder.add_goal(direction, rest[0])
        case "constraint":
            builder.add_constraint(rest, end)
        case _:
            mend = choices(first.text, ("min", "max", "constraint"))
            raise builder.source.error(first.offset, f"unexpected `{first.text}`", mend)


def _document(builder: _Builder, document: Document) -> None:
    known = ("min", "max", "constraints")
    for key, value in document.data.items():
        if key not in known:
            raise document.error(key, reason=f"unknown key `{key}`", mend=choices(key, known))
        if key == "constraints":
            continue
        if not isinstance(value, str):
            raise document.error(key, reason=f"`{key}` takes the name of a metric")
        direction: Direction = "min" if key == "min" else "max"
        builder.add_goal(direction, _Word(value, document.offset(key)))
    lines = document.data.get("constraints", [])
    if not isinstance(lines, list):
        raise document.error("constraints", reason="`constraints` must be a list of texts")
    for index, line in enumerate(lines):
        spot = document.offset("constraints", index)
        if not isinstance(line, str) or "\n" in line:
            reason = "a constraint is a text such as 'Accuracy > 0.8'"
            raise document.error("constraints", index, reason=reason)
        verbatim = builder.source.text.startswith(line, spot + 1)
        words = (
            _words(Text(line), line, 0) if not verbatim else _words(builder.source, line, spot + 1)
        )
        builder.add_constraint(
            words if verbatim else [_Word(word.text, spot) for word in words],
            spot + 1 + len(line) if verbatim else spot,
        )


def _constraint(source: Text, metric: str, relation: str, word: _Word) -> Constraint:
    """A constraint whose value is a number with a unit of the metric."""
    match = _VALUE.fullmatch(word.text)
    if match is None:
        raise source.error(word.offset, f"`{word.text}` is no number with an optional unit")
    number, unit = float(match[1]), match[2]
    relative = unit == "%" and metric != "Accuracy"
    units = UNITS[metric]
    if not relative and unit not in units:
        known = [*filter(None, units), *([] if "%" in units else ["%"])]
        what = f"`{unit}` is no unit of {metric}" if unit else f"{metric} needs a unit"
        raise source.error(word.offset + match.end(1), what, f"known: {', '.join(known)}")
    value = number / 100 if unit == "%" else number * units[unit]
    if not math.isfinite(value):
        raise source.error(word.offset, "the number is too large")
    if metric == "Accuracy" and value > 1:
        raise source.error(word.offset, "no accuracy exceeds 1", f"write {number:g}% or a fraction")
    if metric in ("ModelSize", "MACs") and not relative and 0 < value < 1:
        mend = f"write {100 * value:g}% for a share of the full model's"
        raise source.error(word.offset, f"{metric} is a number of at least 1", mend)
    constraint = Constraint(metric, relation, value, relative)
    top = 1.0 if metric == "Accuracy" else math.inf
    never = (relation == "<" and value <= 0) or (relation == ">" and value >= top)
    if never:
        raise source.error(word.offset, f"`{constraint}` can never hold: contradictory")
    return constraint


def _compatible(a: Constraint, b: Constraint) -> bool:
    """Whether some value fulfils both; a share and an absolute number may always agree."""
    if a.relative != b.relative or a.relation[0] == b.relation[0]:
        return True
    lower, upper = (a, b) if a.relation[0] == ">" else (b, a)
    strict = lower.relation == ">" or upper.relation == "<"
    return lower.value < upper.value or (lower.value == upper.value and not strict)


def _known(source: Text, metric: _Word) -> None:
    if metric.text not in UNITS:
        mend = choices(metric.text, UNITS)
        raise source.error(metric.offset, f"unknown metric `{metric.text}`", mend)


def _metric(metrics: Mapping[str, float], name: str, owner: str) -> float:
    if name not in metrics:
        raise IrpruneError(f"the objective needs the {name} of {owner}")
    return metrics[name]
