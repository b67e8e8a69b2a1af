"""The drawings of the page, as coordinates that the template writes down, or as SVG by pygal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from irprune.reporting.page import Group, Latency, Layer, Proof, Selection

COLOURS = 8
"""Hues of the group map, used in turn."""

PITCH, ROW = 16, 22
"""Pixels between lanes and between rows of the group map."""

MOST_MARKS = 64
"""Stairs of one bar beyond which marks would be a grey smear."""


# Widths


def stair_marks(group: Group, align: int | None) -> str:
    """Return an SVG path of marks at the useful widths, 1000 units wide and 10 high.

    Where the device told no stairs, the multiples that the run was aligned to are marked.
    """
    stairs: Sequence[int] = group.stairs
    if not stairs and align is not None and align > 1:
        stairs = range(align, group.before + 1, align)
    marks = [width for width in stairs if 0 < width < group.before]
    if not 0 < len(marks) <= MOST_MARKS:
        return ""
    return "".join(f"M{1000 * width / group.before:.1f} 0v10" for width in marks)


# The group map: layers stand below each other, and each group is a line along its layers.


@dataclass(frozen=True)
class Station:
    """Where a group's line meets a layer, which creates the channels or sums them away."""

    y: int
    creates: bool


@dataclass(frozen=True)
class Line:
    """The line of a group."""

    group: Group
    x: int
    stations: tuple[Station, ...]

    @property
    def colour(self) -> int:
        return self.group.index % COLOURS


@dataclass(frozen=True)
class Row:
    """A layer: the widths that it creates, and the stretch between the lines that meet there."""

    layer: Layer
    sizes: str
    y: int
    left: int
    right: int


@dataclass(frozen=True)
class Map:
    """The group map with its size in pixels; names stand right of `lanes`."""

    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    lanes: int
    width: int
    height: int


def group_map(groups: Sequence[Group], layers: Sequence[Layer], letters: int) -> Map:
    """Lay the groups out as lines that never share a lane at the same layer.

    Args:
        groups: the groups.
        layers: the layers in the order of the graph.
        letters: the longest name shown, in characters.
    """
    met: dict[int, dict[int, bool]] = {}
    for number, layer in enumerate(layers):
        for index in layer.sums:
            met.setdefault(index, {})[number] = False
        for index in layer.creates:
            met.setdefault(index, {})[number] = True
    ends: list[int] = []  # the last layer on each lane
    lane: dict[int, int] = {}
    for index in sorted(met, key=lambda i: (min(met[i]), i)):
        first, last = min(met[index]), max(met[index])
        free = next((k for k, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        lane[index] = free
    height = [ROW // 2 + ROW * number for number in range(len(layers))]
    lines = tuple(
        Line(
            groups[index],
            PITCH * lane[index] + PITCH // 2,
            tuple(Station(height[n], creates) for n, creates in sorted(met[index].items())),
        )
        for index in sorted(met)
    )
    rows = []
    for number, layer in enumerate(layers):
        spots = [PITCH * lane[i] + PITCH // 2 for i in (*layer.sums, *layer.creates)]
        sizes = ", ".join(f"{groups[i].before} → {groups[i].after}" for i in layer.creates)
        ends_of = min(spots, default=0), max(spots, default=0)
        rows.append(Row(layer, sizes, height[number], *ends_of))
    lanes = PITCH * len(ends)
    longest = max((min(letters, len(row.layer.name)) + len(row.sizes) for row in rows), default=0)
    return Map(lines, tuple(rows), lanes, lanes + 12 + 8 * longest, ROW * len(layers))


# The proof: errors on a logarithmic line


@dataclass(frozen=True)
class Scale:
    """Places of errors along a line, in percent of its length; `error` is None if unknown."""

    bound: float
    error: float | None
    mutants: tuple[float, ...]
    exact: bool
    """The error is zero, which a logarithm cannot show: it stands at the left end."""


LEAST, MOST = -10.0, 2.0
"""Powers of ten at the ends of the line of errors."""


def error_scale(proof: Proof) -> Scale:
    """Place the largest error, its bound and what the mutants were off by."""
    return Scale(
        _place(proof.tolerance),
        None if proof.error is None else _place(proof.error),
        tuple(_place(m.error) for m in proof.mutants if m.error is not None),
        proof.error == 0,
    )


def _place(error: float) -> float:
    if error <= 0:
        return 1.0
    part = (math.log10(error) - LEAST) / (MOST - LEAST)
    return round(min(99.0, max(1.0, 100 * part)), 2)


# The trade-off


def trials_svg(latency: Latency) -> str | None:
    """Draw kept importance against measured latency, both in percent of the original."""
    points = [
        (round(100 * t.ratio.value, 2), round(100 * t.importance, 2))
        for t in latency.trials
        if t.ratio is not None
    ]
    found = latency.ratio and round(100 * latency.ratio.value, 2)
    chosen = [point for point in points if point[0] == found][-1:]
    return _scatter(points, chosen, "measured latency", "importance kept", _percent)


def path_svg(selection: Selection) -> str | None:
    """Draw what the choices that the solver passed are worth against the first cost."""
    points = [(round(100 * cost, 3), worth) for cost, worth in selection.path]
    kind = " (log)" if selection.worth == "log" else ""
    return _scatter(points, [], f"{selection.cost} of its bound", f"worth{kind}", _plain)


def _scatter(
    points: Sequence[tuple[float, float]],
    chosen: Sequence[tuple[float, float]],
    x_title: str,
    y_title: str,
    y_shown: Callable[[float], str],
) -> str | None:
    """Return dots as SVG, those that nothing cheaper beats on a line; None where there are two
    at most.

    pygal finds the scales; its styles and scripts go, for the page has its own, and so does the
    date that it leaves.
    """
    import pygal

    if len(set(points)) < 3:
        return None
    best = _frontier(points)
    chart = pygal.XY(
        width=420,
        height=290,
        margin=6,
        js=(),
        show_legend=False,
        x_title=x_title,
        y_title=y_title,
        x_value_formatter=_percent,
        value_formatter=y_shown,
    )
    chart.add("tried", [point for point in points if point not in best], stroke=False)
    chart.add("best", best)
    chart.add("chosen", chosen, stroke=False)
    root = _bare(ElementTree.fromstring(chart.render()), x_title, y_title)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "scatter",
        "role": "img",
        "aria-label": f"{y_title} against {x_title}, {len(points)} choices",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _bare(element: ElementTree.Element, x_title: str, y_title: str) -> ElementTree.Element:
    """Return a pygal element without namespaces, styles and scripts; a dot tells its numbers."""
    made = ElementTree.Element(element.tag.rpartition("}")[2], element.attrib)
    made.text = element.text
    for child in element:
        tag, kind = child.tag.rpartition("}")[2], child.get("class", "")
        if tag == "desc" and kind == "value":
            x, _, y = (child.text or "").partition(": ")
            ElementTree.SubElement(made, "title").text = f"{x_title} {x}, {y_title} {y}"
        elif (
            tag not in ("defs", "title", "desc", "style", "script")
            and "tooltip-overlay" not in kind
        ):
            made.append(_bare(child, x_title, y_title))
    return made


def _percent(value: float) -> str:
    return f"{value:.4g} %"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that keep more than every cheaper one, by cost."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best
