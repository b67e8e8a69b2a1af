"""Selection that may empty groups: only inside branches, and never so many that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from branch_nets import Blocks, assert_clean, ops
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from irprune import api
from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.cost import CostModel
from irprune.errors import IrpruneError
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.choice.emptying import Emptying
from irprune.passes.compact import Compact
from irprune.passes.prune import Prune
from irprune.plan import Plan
from irprune.proof.prover import prove


@pytest.fixture(scope="module")
def runner() -> Iterator[OrtRunner]:
    with OrtRunner() as found:
        yield found


def _chain(*kinds: str, seed: int = 0) -> Blocks:
    net = Blocks(seed=seed)
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    for k, kind in enumerate(kinds):
        x = net.block(x, kind, 4, 6, f"b{k}")
    net.biased(net.biased(x, 4, 5, name="head"), 5, 3, name="y")
    return net


def _names(model: Model) -> set[str]:
    """The groups that the network can be without, each alone."""
    channels = analyse(model.ir.graph)
    everything = np.ones(channels.count, np.bool_)
    groups = coupled_groups(channels)
    return {group.name for group in Emptying(channels, everything).allowed(groups, ())}


def _pruned(model: Model, **options: Any) -> tuple[Plan, dict[str, Any]]:
    report = Prune(criterion="l1", **options).run(model, Context())
    assert model.pending is not None
    return model.pending, report


def _width(plan: Plan, name: str, whole: int) -> int:
    mask = plan.axes.get(name, {}).get(0)
    return whole if mask is None else int(mask.sum())


def test_groups_inside_branches_may_go() -> None:
    assert _names(_chain("plain", "basic", "bottleneck").model()) == {
        *("b0.w", "b1.w", "b2.w", "b2.middle.w"),
    }


def test_neither_trunk_nor_gates_nor_constants_before_padding_may_go() -> None:
    assert _names(_chain("stacked", "squeezed").model()) == {"b0.middle.w", "b1.w"}


def test_two_paths_of_which_one_must_stay() -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    x = net.op("Add", net.plain(x, 4, 6, "a"), net.plain(x, 4, 7, "b"))
    net.biased(net.biased(x, 4, 5, name="head"), 5, 3, name="y")
    model = net.model()
    assert _names(model) == {"a.w", "b.w"}
    plan, _ = _pruned(model, ratio=0.99, min=0)
    assert sorted([_width(plan, "a.w", 6) > 0, _width(plan, "b.w", 7) > 0]) == [False, True]
    Compact().run(model, Context())
    assert_clean(model)
    assert "Add" not in ops(model)


def test_without_min_0_every_group_keeps_a_channel() -> None:
    plan, report = _pruned(_chain("plain", "basic").model(), ratio=0.99)
    assert all(mask.any() for masks in plan.axes.values() for mask in masks.values())
    assert "groups_emptied" not in report


def test_min_0_empties_what_it_can() -> None:
    plan, report = _pruned(_chain("plain", "basic").model(), ratio=0.99, min=0)
    assert [_width(plan, name, 6) for name in ("b0.w", "b1.w")] == [0, 0]
    assert _width(plan, "stem.w", 4) == _width(plan, "head.w", 5) == 1
    assert report["groups_emptied"] == 2


def test_a_target_below_the_narrowest_network_is_met_by_emptying() -> None:
    kinds = ("basic",) * 4
    with pytest.raises(IrpruneError, match="cannot be reached"):
        _pruned(_chain(*kinds).model(), macs=0.4, align=4)
    model = _chain(*kinds).model()
    before = CostModel(model.ir.graph).full().macs
    plan, report = _pruned(model, macs=0.4, align=4, min=0)
    assert report["groups_emptied"]
    estimate = CostModel(model.ir.graph).of_plan(plan).macs
    Compact().run(model, Context())
    after = CostModel(model.ir.graph).full().macs
    assert after <= estimate <= 0.42 * before


def test_a_second_selection_leaves_emptied_groups_alone() -> None:
    model = _chain("basic", "basic").model()
    _pruned(model, ratio=0.9, align=8, min=0, only=("b0.w",))
    plan, _ = _pruned(model, ratio=0.5, scope="local")
    assert [_width(plan, name, 6) for name in ("b0.w", "b1.w")] == [0, 3]


def test_overrides_may_only_remove_whole_groups_together(tmp_path: Path) -> None:
    """The first of three padded convolutions can go with the second, not without."""
    path = tmp_path / "overrides.toml"
    path.write_text('[groups."b0.w"]\nkeep = 0\n')
    with pytest.raises(IrpruneError, match=r"remove the whole of b0\.w: .*cannot take it in"):
        _pruned(_chain("stacked").model(), ratio=0.5, overrides=str(path))
    path.write_text('[groups."b0.*"]\nkeep = 0\n')
    plan, _ = _pruned(_chain("stacked").model(), ratio=0.5, overrides=str(path))
    assert _width(plan, "b0.w", 6) == _width(plan, "b0.middle.w", 6) == 0


def test_overrides_do_not_remove_gates(tmp_path: Path) -> None:
    path = tmp_path / "overrides.toml"
    path.write_text('[groups."b0.gate.w"]\nratio = 1\n')
    with pytest.raises(IrpruneError, match=r"\(Mul\) reads there would not be added"):
        _pruned(_chain("squeezed").model(), ratio=0.5, overrides=str(path))


@given(
    kinds=st.lists(st.sampled_from(Blocks.BRANCHES), min_size=1, max_size=4),
    share=st.floats(0.05, 0.6),
    align=st.sampled_from([1, 2, 4]),
    seed=seeds,
)
def test_whatever_is_selected_is_proved(
    kinds: list[str], share: float, align: int, seed: int, runner: OrtRunner
) -> None:
    model = _chain(*kinds, seed=seed).model()
    base = model.clone()
    try:
        plan, _ = _pruned(model, macs=round(share, 3), align=align, min=0)
    except IrpruneError as error:
        assert "cannot be reached" in str(error)
        return
    Compact().run(model, Context())
    assert_clean(model)
    proof = prove(base.ir, model.ir, plan, Context(runner=lambda: runner), seeds=1)
    assert proof.verdict != "failed", proof.reason  # a dead Relu may hide the mutants


def test_a_plan_with_emptied_axes_is_applied_to_another_checkpoint(tmp_path: Path) -> None:
    """One where the branch adds zero, unlike in the first."""
    net = _chain("basic", "plain")
    settings = api.Settings()
    result = api.run("normalize, prune{ratio=0.99 min=0}, compact", net.model(), settings=settings)
    assert result.report["proof"][-1]["verdict"] == "proved"
    result.plan.save(tmp_path / "plan.json")
    other = _chain("basic", "plain", seed=5).model()
    for name, value in other.ir.graph.initializers.items():
        if name.startswith("norm") and name.endswith((".b", ".m")):
            assert value.const_value is not None
            value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=name)
    again = api.apply(Plan.load(tmp_path / "plan.json"), other)
    assert again.report["proof"][-1]["verdict"] == "proved"
    assert "Add" in ops(result.model)


# Real networks


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("resnet20_cifar10", "macs=0.4 align=16 min=0", 2),
        ("resnet56_cifar10", "macs=0.4 align=16 min=0", 5),
        ("mobilenetv2_imagenet", "macs=0.2 align=64 min=0", 4),
    ],
)
def test_blocks_of_real_networks_go(shared: Path, name: str, options: str, least: int) -> None:
    model = api.load(shared / "models" / "onnx" / f"{name}.onnx")
    result = api.run(f"normalize, prune{{{options}}}, compact", model)
    report = result.report
    assert [link["verdict"] for link in report["proof"]] == ["proved", "proved"]
    _, prune, compact = (row["changed"] for row in report["passes"])
    assert prune["groups_emptied"] >= least and compact["removed_nodes"] >= 2 * least
    assert report["after"]["macs"] <= prune["reached"]["macs"] * report["before"]["macs"] + 1
    assert_clean(result.model)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20_cifar10", "mobilenetv2_imagenet"])
def test_all_blocks_of_real_networks_go(shared: Path, name: str) -> None:
    """Every group that the network can be without, all at once."""
    model = api.load(shared / "models" / "onnx" / f"{name}.onnx")
    base = api.run("normalize", model, verify=False).model
    channels = analyse(base.ir.graph)
    emptying = Emptying(channels, np.ones(channels.count, np.bool_))
    groups = emptying.allowed(coupled_groups(channels), ())
    plan = channels.plan(emptying.without(groups))
    small = base.clone()
    small.pending = plan
    Compact().run(small, Context())
    assert_clean(small)
    assert len(groups) > 8 and len(small.ir.graph) < len(base.ir.graph) - 2 * len(groups)
    assert api.verify(base, small, plan).verdict == "proved"
