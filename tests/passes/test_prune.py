"""`prune`: targets, scopes, constraints and refusals; the graph stays, a plan is pending."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Net, check_equal, compacted, seeds, value_of

from irprune.cost import CostModel
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact
from irprune.passes.prune import Prune
from irprune.pipeline.language import parse
from irprune.pipeline.manager import run_passes
from irprune.pipeline.options import resolve
from irprune.plan import Plan
from irprune.shapes import infer
from irprune.text import print_model


def _net(seed: int = 0, batch: int | str = 1) -> Model:
    """A residual block between two convolutions, then a linear classifier."""
    net = Net(seed=seed)
    x = net.op("Relu", net.conv(net.input(batch, 3, 8, 8), 3, 24, 3, 3, name="a"))
    y = net.op("Relu", net.conv(x, 24, 40, name="b"))
    x = net.op("Add", x, net.conv(y, 40, 24, name="c"))
    x = net.op("Relu", net.conv(x, 24, 32, 3, 3, name="d"))
    net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 32, 10, "y")
    return net.model()


def _prune(model: Model, context: Context | None = None, **options: Any) -> dict[str, Any]:
    options = {"criterion": "l1", "normalize": "mean", **options}
    if options["criterion"] not in ("bn-scale", "random"):
        options = {"members": "producers", **options}
    return Prune(**options).run(model, context or Context())


def _plan(model: Model) -> Plan:
    assert model.pending is not None
    return model.pending


def _kept(model: Model, name: str, axis: int = 0) -> int:
    mask = _plan(model).axes.get(name, {}).get(axis)
    return int(value_of(model, name).shape[axis]) if mask is None else int(mask.sum())


def _widths(model: Model) -> dict[str, int]:
    return {name: _kept(model, f"{name}.w") for name in "abcd"}


# Targets


def test_the_graph_stays_untouched() -> None:
    model = _net()
    before = print_model(model.ir)
    report = _prune(model, ratio=0.5)
    assert print_model(model.ir) == before
    assert model.base is None
    assert model.plan is None
    assert report["groups"] == 3
    assert report["classes"] == 24 + 40 + 32
    assert report["classes_removed"] == 48
    assert report["target"] == {"ratio": 0.5}


def test_groups_without_a_score_are_kept_and_named() -> None:
    net = Net()
    x = net.conv(net.input(1, 3, 4, 4), 3, 8, name="a")
    x = net.op("BatchNormalization", x, *(net.weight(8, low=0.5) for _ in range(4)))
    for name in "bc":
        x = net.op("Relu", net.conv(x, 8, 8, name=name))
    net.conv(x, 8, 3, name="y")
    model, lines = net.model(), list[str]()
    report = _prune(model, Context(log=lines.append), criterion="bn-scale", ratio=0.5)
    assert [_kept(model, f"{name}.w") for name in "abc"] == [4, 8, 8]
    assert lines == ["prune: keeps groups without a score by bn-scale whole: b.w, c.w"]
    assert report["groups"] == 1 and report["groups_unscored"] == 2
    with pytest.raises(IrpruneError, match="none of the groups on offer has a score"):
        _prune(model, criterion="bn-scale", ratio=0.5, only=("b.w",))
    assert "groups_unscored" not in _prune(model, criterion="bn-scale", ratio=0.5, only=("a.w",))


def test_a_local_ratio_takes_the_same_part_of_every_group_rounded_down() -> None:
    model = _net()
    _prune(model, ratio=0.3, scope="local")
    assert _widths(model) == {"a": 24 - 7, "b": 40 - 12, "c": 24 - 7, "d": 32 - 9}


def test_a_global_ratio_takes_the_least_important_of_all() -> None:
    model = _net()
    weak = value_of(model, "b.w")
    weak.const_value = onnx_ir.tensor(weak.const_value.numpy() * np.float32(1e-3), name="b.w")
    _prune(model, ratio=0.4, scope="global", normalize="none")
    assert _widths(model) == {"a": 24, "b": 40 - 38, "c": 24, "d": 32}


def test_a_ratio_of_zero_removes_nothing() -> None:
    model = _net()
    _prune(model, ratio=0)
    assert not _plan(model)


def test_the_least_important_channels_go() -> None:
    model = _net()
    norms = np.abs(value_of(model, "d.w").const_value.numpy()).sum(axis=(1, 2, 3))
    _prune(model, ratio=0.25, scope="local")
    kept = _plan(model).axes["d.w"][0]
    assert norms[~kept].max() < norms[kept].min()


@pytest.mark.parametrize("what", ["macs", "params"])
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.25, 0.1])
def test_a_fraction_to_keep_is_reached_within_two_percent(
    what: str, scope: str, share: float
) -> None:
    model = _net()
    report = _prune(model, scope=scope, **{what: share})
    before = CostModel(model.ir.graph).full()
    after = CostModel(model.ir.graph).of_plan(_plan(model))
    reached = getattr(after, what) / getattr(before, what)
    assert reached == pytest.approx(share, rel=0.02)
    assert report["reached"] == {what: pytest.approx(reached)}
    assert report["target"] == {what: share}
    assert report["within_2_percent"]


def test_an_absolute_amount_is_reached_within_two_percent() -> None:
    model = _net()
    for options in ({"macs": "150k"}, {"params": "4.2k"}, {"macs": "0.15M"}):
        model.pending = None
        _prune(model, **options)
        costs = CostModel(model.ir.graph).of_plan(_plan(model))
        wanted = 4200 if "params" in options else 150_000
        assert (costs.params if "params" in options else costs.macs) == pytest.approx(
            wanted, rel=0.02
        )


def test_keeping_everything_removes_nothing() -> None:
    model = _net()
    _prune(model, macs=1.0)
    assert not _plan(model)


def test_macs_count_the_batch_that_the_user_gave() -> None:
    model = _net(batch="N")
    once = CostModel(model.ir.graph).full().macs
    _prune(model, Context(shapes={"x": (4, 3, 8, 8)}), macs=str(2 * once))
    reached = CostModel(model.ir.graph, {"N": 4}).of_plan(_plan(model)).macs
    assert reached == pytest.approx(2 * once, rel=0.02)


@pytest.mark.parametrize("what", ["macs", "params"])
def test_an_impossible_target_tells_the_least(what: str) -> None:
    model = _net()
    with pytest.raises(IrpruneError, match=rf"{what}=0.01 cannot be reached: the least is") as e:
        _prune(model, min=8, **{what: 0.01})
    assert e.value.mend is not None
    offered = float(e.value.mend.split("=")[1].split()[0])
    _prune(model, min=8, **{what: offered})
    assert model.pending is not None


# Alignment, floors, and which groups


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("align", [4, 8])
def test_widths_are_multiples_of_the_alignment(scope: str, align: int) -> None:
    model = _net()
    report = _prune(model, macs=0.5, align=align, scope=scope)
    assert report["align"] == align
    widths = _widths(model)
    assert all(width % align == 0 for width in widths.values())
    assert sum(widths.values()) < 24 + 40 + 24 + 32


@dataclass
class Device:
    """A device whose blocks are that wide."""

    width: int
    name: str = "test"

    def align(self) -> int:
        return self.width


def test_alignment_auto_asks_the_device_and_yields_to_the_target() -> None:
    model = _net()
    assert _prune(model, Context(device=Device(8)), macs=0.5, align="auto")["align"] == 8
    model.pending = None
    report = _prune(model, Context(device=Device(32)), macs=0.1, align="auto")
    assert report["align"] < 32
    assert report["reached"]["macs"] <= 0.102
    with pytest.raises(IrpruneError, match="align=auto needs a device"):
        _prune(model, macs=0.5, align="auto")


def test_alignment_counts_positions_not_classes() -> None:
    """Two positions a class: widths are multiples of 8, classes of 4."""
    net = Net()
    x = net.conv(net.input(1, 4, 4, 4), 4, 32, name="a", group=2)
    net.conv(x, 32, 3, name="y")
    model = net.model()
    _prune(model, ratio=0.6, align=8)
    assert _kept(model, "a.w") == 16


def test_no_axis_falls_below_the_floor() -> None:
    model = _net()
    _prune(model, ratio=0.95, min=10)
    assert min(_widths(model).values()) == 10


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({"only": ("b.w",)}, {"a", "c", "d"}),
        ({"only": ("b*", "d*")}, {"a", "c"}),
        ({"skip": ("d.w",)}, {"d"}),
        ({"skip": ("c.Conv",)}, {"a", "c"}),
        ({"only": ("?.w",), "skip": ("b.w",)}, {"b"}),
    ],
)
def test_only_and_skip_match_producers_and_their_nodes(
    options: dict[str, Any], whole: set[str]
) -> None:
    model = _net()
    full = _widths_of_net(model)
    _prune(model, ratio=0.5, scope="local", **options)
    assert {name for name, width in _widths(model).items() if width == full[name]} == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": ("b",)}, r"prune.skip: 'b' matches no layer; did you mean b.w\?"),
        ({"skip": ("d.w", "dd*")}, r"prune.skip: 'dd\*' matches no layer"),
        ({"only": ("b.w", "zebra")}, r"prune.only: 'zebra' matches no layer; patterns are of"),
    ],
)
def test_names_that_match_no_layer_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        _prune(_net(), ratio=0.5, **options)


def test_layers_that_keep_their_channels_anyway_may_be_skipped() -> None:
    model = _net()
    _prune(model, ratio=0.5, skip=("y*",))
    assert model.pending is not None


def _widths_of_net(model: Model) -> dict[str, int]:
    return {name: int(value_of(model, f"{name}.w").shape[0]) for name in "abcd"}


def test_nothing_to_prune_says_what_pins() -> None:
    net = Net()
    net.conv(net.image(3), 3, 4, name="c")
    net.op("Bernoulli", "c", name="y")
    with pytest.raises(IrpruneError, match="no channel can be pruned"):
        _prune(net.model(), ratio=0.5, skip=("p.w",))
    net = Net()
    net.consume(net.op("Bernoulli", net.image(3)), 4, 1, 3)
    with pytest.raises(
        IrpruneError, match=r"3 positions: there is no rule for this op at bernoulli"
    ):
        _prune(net.model(), ratio=0.5)


# Refusals and seeds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "prune takes ratio, or latency, macs, params and memory; given: none"),
        ({"ratio": 0.5, "macs": 0.5}, "given: ratio, macs"),
        ({"ratio": 1.0}, r"ratio=1.0 must lie in \[0, 1\)"),
        ({"ratio": -0.1}, r"ratio=-0.1 must lie in \[0, 1\)"),
        ({"ratio": float("nan")}, "must lie in"),
        ({"macs": 0}, r"macs=0 must lie in \(0, 1\]"),
        ({"params": 1.5}, r"params=1.5 must lie in \(0, 1\]"),
        ({"macs": "12q"}, 'macs="12q" is no number'),
        ({"macs": "1.2.3M"}, 'macs="1.2.3M" is no number'),
        ({"macs": ""}, 'macs="" is no number'),
        ({"ratio": 0.5, "align": 0}, "align must be at least 1"),
        ({"ratio": 0.5, "min": -1}, "min must not be negative"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        Prune(**options)


def test_a_weight_with_nan_is_refused_by_name() -> None:
    model = _net()
    weight = value_of(model, "d.w")
    numbers = weight.const_value.numpy().copy()
    numbers[3, 0, 0, 0] = np.nan
    weight.const_value = onnx_ir.tensor(numbers, name="d.w")
    with pytest.raises(IrpruneError, match=r"weight d\.w holds NaN"):
        _prune(model, ratio=0.5)


def test_random_selection_follows_the_seed() -> None:
    def chosen(context: Context, **options: Any) -> str:
        model = _net()
        _prune(model, context, criterion="random", ratio=0.5, **options)
        return str(_plan(model).to_json())

    assert chosen(Context(seed=1)) == chosen(Context(seed=1))
    assert chosen(Context(seed=1)) != chosen(Context(seed=2))
    assert chosen(Context(seed=1), seed=5) == chosen(Context(seed=2), seed=5)


_WEIGHED = itertools.product(
    ["reconstruction", "l1", "l2", "linf", "fpgm"], ["producers", "consumers", "all"]
)


@pytest.mark.parametrize(("criterion", "members"), [("random", None), *_WEIGHED])
def test_the_same_run_gives_the_same_plan(criterion: str, members: str | None) -> None:
    plans = []
    for _ in range(2):
        model = _net()
        _prune(model, criterion=criterion, members=members, macs=0.5)
        plans.append(_plan(model).to_json())
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("criterion", "data"),
    [
        *(("bn-scale", None), ("random", None), ("mean-activation", "s.npz"), ("apoz", "s.npz")),
        *(("sum-activation", "s.npz"), ("taylor", "s.npz"), ("fisher", "s.npz")),
    ],
)
def test_members_are_refused_where_no_weights_are_measured(
    criterion: Any, data: str | None
) -> None:
    with pytest.raises(IrpruneError, match=f"{criterion} measures no weights") as caught:
        Prune(criterion=criterion, data=data, members="consumers", ratio=0.5)
    assert caught.value.mend == "drop members"
    Prune(criterion=criterion, data=data, ratio=0.5)


# In pipelines


@given(
    share=st.floats(0.15, 0.9),
    criterion=st.sampled_from(["reconstruction", "l1", "l2", "random", "fpgm"]),
    scope=st.sampled_from(["local", "global"]),
    align=st.sampled_from([1, 4]),
    seed=seeds,
)
@settings(max_examples=10)
def test_pruned_networks_stay_exact(
    share: float, criterion: str, scope: str, align: int, seed: int
) -> None:
    model = _net(seed)
    _prune(model, Context(seed=seed), criterion=criterion, scope=scope, align=align, macs=share)
    small = compacted(model, _plan(model))
    check_equal(model, small, _plan(model), seed)
    infer(small.ir)
    expected = CostModel(model.ir.graph).of_plan(_plan(model))
    assert CostModel(small.ir.graph).full() == expected


def _run(text: str, model: Model) -> Model:
    run_passes(resolve(parse(text)), model, Context())
    return model


def test_two_prunes_before_a_compact_compose() -> None:
    model = _run("prune{ratio=0.25 scope=local}, prune{ratio=0.5 scope=local}", _net())
    assert _widths(model) == {"a": 9, "b": 15, "c": 9, "d": 12}


def test_two_prunes_with_compacts_compose_over_the_base() -> None:
    text = "prune{ratio=0.25 scope=local}, compact, prune{ratio=0.5 scope=local}, compact"
    model = _run(text, _net())
    assert model.base is not None
    assert model.plan is not None
    assert model.plan.axes["b.w"][0].shape == (40,)
    assert int(model.plan.axes["b.w"][0].sum()) == 15
    base = Model.from_ir(model.base)
    check_equal(base, model, model.plan, 0)


def test_fractions_are_of_the_first_original() -> None:
    model = _run("prune{macs=0.5}, compact, prune{macs=0.25}, compact", _net())
    before = CostModel(_net().ir.graph).full().macs
    assert CostModel(model.ir.graph).full().macs == pytest.approx(0.25 * before, rel=0.02)


def test_a_second_prune_never_brings_channels_back() -> None:
    model = _net()
    _prune(model, ratio=0.5, scope="local")
    first = _plan(model)
    _prune(model, macs=0.1, criterion="random")
    second = _plan(model)
    for name, masks in first.axes.items():
        for axis, mask in masks.items():
            assert not (second.axes[name][axis] & ~mask).any()


def test_compact_after_prune_names_its_work() -> None:
    model = _net()
    _prune(model, ratio=0.5)
    assert Compact().run(model, Context()) == {"sliced_tensors": len(_plan_of(model).axes)}
    assert model.pending is None


def _plan_of(model: Model) -> Plan:
    return model.plan or _plan(model)
