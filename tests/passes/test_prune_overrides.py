"""Override files of `prune`: kept fractions and counts of single groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from strategies import Net

from irprune.cost import CostModel
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.prune import Prune
from irprune.plan import Plan


def _net() -> Model:
    """Three groups: ``a`` and ``c`` are summed, ``b`` lies between them, ``d`` follows."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 8), 3, 24, 3, 3, name="a"))
    y = net.op("Relu", net.conv(x, 24, 40, name="b"))
    x = net.op("Relu", net.op("Add", x, net.conv(y, 40, 24, name="c")))
    net.conv(net.conv(x, 24, 32, 3, 3, name="d"), 32, 10, name="y")
    return net.model()


def _prune(model: Model, **options: Any) -> Plan:
    Prune(criterion="l1", **options).run(model, Context())
    assert model.pending is not None
    return model.pending


def _widths(plan: Plan) -> dict[str, int]:
    whole = {"a": 24, "b": 40, "c": 24, "d": 32}
    kept = {n: plan.axes.get(f"{n}.w", {}).get(0) for n in whole}
    return {n: whole[n] if mask is None else int(mask.sum()) for n, mask in kept.items()}


def _overrides(folder: Path, text: str) -> str:
    path = folder / "overrides.toml"
    path.write_text(text)
    return str(path)


def test_overrides_fix_single_groups(tmp_path: Path) -> None:
    text = '[groups."b.w"]\nratio = 0.25\n[groups."[ac].w"]\nkeep = 5\n'
    plan = _prune(_net(), ratio=0.5, scope="local", overrides=_overrides(tmp_path, text))
    assert _widths(plan) == {"a": 5, "b": 30, "c": 5, "d": 16}


@pytest.mark.parametrize("text", ["keep = 0", "ratio = 1", "ratio = 1.0"])
@pytest.mark.parametrize("least", [0, 1, 8])
def test_overrides_remove_whole_groups(text: str, least: int, tmp_path: Path) -> None:
    path = _overrides(tmp_path, f'[groups."b.w"]\n{text}\n')
    plan = _prune(_net(), ratio=0.5, scope="local", min=least, overrides=path)
    assert _widths(plan) == {"a": 12, "b": 0, "c": 12, "d": 16}


def test_overrides_that_keep_a_channel_never_empty_a_group(tmp_path: Path) -> None:
    path = _overrides(tmp_path, '[groups."b.w"]\nkeep = 3\n')
    plan = _prune(_net(), ratio=0.5, scope="local", align=8, min=0, overrides=path)
    assert _widths(plan)["b"] == 8


def test_a_target_is_met_around_overrides(tmp_path: Path) -> None:
    text = '[groups."b.w"]\nratio = 0.0\n'
    model = _net()
    plan = _prune(model, macs=0.4, overrides=_overrides(tmp_path, text))
    before = CostModel(model.ir.graph).full().macs
    assert CostModel(model.ir.graph).of_plan(plan).macs == pytest.approx(0.4 * before, rel=0.02)
    assert _widths(plan)["b"] == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups", "not a usable override file"),
        ("[layers]\n", "not a usable override file"),
        ('[groups]\n"b.w" = 0.5\n', "not a usable override file"),
        ('[groups."b.w"]\nratio = "half"\n', "not a usable override file"),
        ('[groups."b.w"]\nratio = 1.5\n', r"ratio = 1.5 is not ratio in \[0, 1\] or keep"),
        ('[groups."a.w"]\nkeep = 0\n', "remove the whole of a.w: output y would not depend"),
        ('[groups."b.w"]\nkeep = -1\n', "keep = -1 is not"),
        ('[groups."b.w"]\nkeep = inf\n', "keep = inf is not"),
        ('[groups."b.w"]\nkeep = nan\n', "keep = nan is not"),
        ('[groups."b.w"]\nwidth = 3\n', "width = 3 is not"),
        ('[groups."nothing"]\nkeep = 3\n', "override 'nothing' matches no group"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        _prune(_net(), ratio=0.5, overrides=_overrides(tmp_path, text))


def test_a_missing_override_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="not a usable override file"):
        _prune(_net(), ratio=0.5, overrides=str(tmp_path / "none.toml"))
