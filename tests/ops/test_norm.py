"""Normalisations: parameters go with their channel; statistics over channels obey the policy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_nets import FORMS, NormNet, check_gathered
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why

from irprune.channels import analyse
from irprune.walk import Heads


def _batchnorm(net: Net, x: str, channels: int, **attributes: int) -> str:
    parameters = [net.weight(channels, name=n, low=0.5) for n in ("scale", "bias", "mean", "var")]
    return net.op("BatchNormalization", x, *parameters, name="c", **attributes)


def test_batchnorm_parameters_follow_their_channel() -> None:
    net = Net()
    _batchnorm(net, net.image(3), 3)
    net.consume("c", 4, 1, 3)
    sites = [(n, 0) for n in ("p.w", "scale", "bias", "mean", "var")]
    model = net.model()
    assert ties(model, *sites, ("c", 1)) == [[1, 2, 3]] * 6
    assert macs(model) == 3 * 2 * 16 + 3 * 3 * 16


def test_batchnorm_in_training_mode_pins() -> None:
    net = Net()
    parameters = [net.weight(3, low=0.5) for _ in range(4)]
    results = ["c", "running_mean", "running_var"]
    net.split("BatchNormalization", net.image(3), *parameters, names=results, training_mode=1)
    net.consume("c", 4, 1, 3)
    assert "training mode" in why(net.model(), "p.w", 0)


def test_batchnorm_per_position_pins() -> None:
    net = Net(8)
    parameters = [net.weight(3, 4, 4, name=n) for n in ("scale", "bias", "mean", "var")]
    net.op("BatchNormalization", net.image(3), *parameters, name="c", spatial=0)
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert "per position" in why(model, "p.w", 0)
    assert "per position" in why(model, "scale", 1)


def test_instance_norm_frees_channels_and_pins_positions() -> None:
    net = Net()
    m = net.op("MatMul", net.image(3), net.weight(4, 5, name="m"), name="l")
    parameters = [net.weight(3, name="scale"), net.weight(3, name="bias")]
    net.op("InstanceNormalization", m, *parameters, name="c")
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert ties(model, ("p.w", 0), ("scale", 0), ("bias", 0), ("c", 1)) == [[1, 2, 3]] * 4
    assert why(model, "m", 1).startswith("takes part in InstanceNormalization statistics")


@given(
    kind=st.sampled_from(["BatchNormalization", "InstanceNormalization"]),
    rank=st.integers(1, 3),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 9, 14, 15, 22]),
    seed=seeds,
)
def test_random_normalisations_stay_exact(
    kind: str, rank: int, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    x = net.image(channels, batch, [4] * rank)
    if kind == "BatchNormalization":
        _batchnorm(net, x, channels)
    else:
        net.op(kind, x, net.weight(channels), net.weight(channels), name="c", epsilon=1e-3)
    net.consume("c", rank + 2, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


# Normalisations over channels


@pytest.mark.parametrize(("kind", "opset"), [("LayerNormalization", 17), ("RMSNormalization", 23)])
def test_a_layer_norm_ties_its_parameters_and_pins_its_axes(kind: str, opset: int) -> None:
    net = Net(opset)
    x = net.op("MatMul", net.weight(5, 3, name="m"), net.tokens(4))
    net.op(kind, x, net.weight(4, name="scale"), name="c")
    net.op("ReduceSum", "c", net.ints(1, 2), name="y")
    model = net.model()
    assert ties(model, ("m", 0), ("c", 1)) == [[1, 2, 3, 4, 5]] * 2
    reason = f"is normalised by {kind} at c.{kind} ({kind})"
    assert why(model, "p.w", 1) == why(model, "scale", 0) == reason
    free = analyse(model.ir.graph, "inner", (kind,))
    names = ("p.w", 1), ("scale", 0), ("c", 2)
    assert ties(model, *names, channels=free) == [[1, 2, 3, 4]] * 3


def test_a_parameter_that_is_broadcast_stays() -> None:
    net = Net()
    net.op("LayerNormalization", net.image(3), net.weight(3, 1, 4, name="scale"), name="c", axis=1)
    net.consume("c", 4, 1, 3)
    model = net.model()
    free = analyse(model.ir.graph, "inner", ("LayerNormalization",))
    assert ties(model, ("p.w", 0), ("scale", 0), ("scale", 1), channels=free) == [
        *[[1, 2, 3]] * 2,
        [0],
    ]


@given(
    kind=st.sampled_from(["LayerNormalization", "RMSNormalization"]),
    axis=st.sampled_from([-1, -2, 1, 2]),
    channels=st.integers(2, 6),
    bias=st.booleans(),
    statistics=st.booleans(),
    lead=st.booleans(),
    batch=batches,
    seed=seeds,
)
def test_random_layer_norms_lose_channels(
    kind: str,
    axis: int,
    channels: int,
    bias: bool,
    statistics: bool,
    lead: bool,
    batch: Dim,
    seed: int,
) -> None:
    """Channels lie on all normalised axes; means and deviations are compared as well."""
    net = Net(23 if kind == "RMSNormalization" else 17, seed)
    x = net.op("MatMul", net.weight(4, 3, name="m"), net.tokens(channels, batch))
    dims = [4, channels][axis % 3 - 1 :]
    parameters = [net.weight(*[1] * lead, *dims)]
    names = ["c"]
    if kind == "LayerNormalization":
        parameters += [net.weight(*[1] * lead, *dims)] if bias else []
        names += ["mean", "deviation"] if statistics else []
    net.split(kind, x, *parameters, names=names, axis=axis)
    net.op("ReduceSum", net.op("Sigmoid", "c"), net.ints(1, 2), name="y")
    trial = check_gathered(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1), channels=trial.channels)[0])


@pytest.mark.parametrize("opset", [18, 21])
def test_a_group_norm_loses_equally_many_of_every_group(opset: int) -> None:
    net = NormNet(opset)
    parameters = [net.weight(6 if opset == 21 else 2, name=name) for name in ("scale", "bias")]
    net.op("GroupNormalization", net.image(6), *parameters, name="c", num_groups=2)
    net.consume("c", 4, 1, 6)
    model = net.model()
    assert why(model, "p.w", 0).startswith("is normalised by GroupNormalization at ")
    free = analyse(model.ir.graph, "inner", ("GroupNormalization",))
    assert ties(model, ("p.w", 0), ("c", 1), channels=free) == [[1, 2, 3, 4, 5, 6]] * 2
    assert [cells.shape for cells in free.walk.cells] == [(2, 3)]
    tied = analyse(model.ir.graph, "inner", ("GroupNormalization",), tie=True)
    assert ties(model, ("p.w", 0), ("c", 1), channels=tied) == [[1, 2, 3, 1, 2, 3]] * 2
    (scale,) = ties(model, ("scale", 0), channels=tied)
    assert scale == ([1, 2, 3, 1, 2, 3] if opset == 21 else [0, 0])


def test_groups_of_one_channel_are_exact() -> None:
    net = NormNet(21)
    net.op("GroupNormalization", net.image(6), net.weight(6), net.weight(6), name="c", num_groups=6)
    net.consume("c", 4, 1, 6)
    trial = check_random_plan(net.model(), 1)
    assert ties(trial.model, ("p.w", 0)) == [[1, 2, 3, 4, 5, 6]]
    (node,) = (n for n in trial.small.ir.graph if n.op_type == "GroupNormalization")
    assert trial.removed("c", 1)
    assert node.attributes.get_int("num_groups") == 6 - trial.removed("c", 1)


def test_a_group_norm_pins_positions() -> None:
    net = NormNet(21)
    m = net.op("MatMul", net.image(3), net.weight(4, 5, name="m"))
    net.op("GroupNormalization", m, net.weight(3), net.weight(3), name="c", num_groups=3)
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "m", 1).startswith("takes part in GroupNormalization statistics")


@given(
    groups=st.integers(1, 3),
    width=st.integers(1, 4),
    batch=batches,
    opset=st.sampled_from([21, 22]),  # onnx.checker takes no GroupNormalization before
    seed=seeds,
)
def test_random_group_norms_lose_channels(
    groups: int, width: int, batch: Dim, opset: int, seed: int
) -> None:
    net = NormNet(opset, seed)
    channels = groups * width
    parameters = net.weight(channels), net.weight(channels)
    x = net.image(channels, batch)
    net.op("GroupNormalization", x, *parameters, name="c", num_groups=groups)
    net.consume("c", 4, 1, channels)
    trial = check_gathered(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0), channels=trial.channels)[0])


@given(
    groups=st.integers(1, 3),
    width=st.integers(2, 4),
    batch=batches,
    heads=st.sampled_from(["inner", "whole"]),
    opset=st.sampled_from([11, 17, 20]),
    seed=seeds,
)
def test_random_group_norms_of_several_nodes_lose_channels(
    groups: int, width: int, batch: Dim, heads: Heads, opset: int, seed: int
) -> None:
    net = NormNet(opset, seed)
    channels = groups * width
    x = net.op("Reshape", net.image(channels, batch), net.ints(0, groups, -1), name="g")
    x = net.op("InstanceNormalization", x, net.weight(groups), net.weight(groups), name="n")
    x = net.op("Reshape", x, net.ints(2 if batch == 2 else -1, channels, 4, 4), name="r")
    net.op("Mul", x, net.weight(channels, 1, 1, name="scale"), name="c")
    net.consume("c", 4, 1, channels)
    trial = check_gathered(net.model(), seed, ("GroupNormalization",), heads)
    rows = ties(trial.model, ("p.w", 0), channels=trial.channels)[0]
    if heads == "inner":
        assert rows == [*range(1, channels + 1)]
    elif groups > 1:
        assert rows == [g for g in range(1, groups + 1) for _ in range(width)]


@given(
    kind=st.sampled_from(["LpNormalization", "MeanVarianceNormalization"]),
    axes=st.sampled_from([[1], [-1], [2], [0, 2, 3], [0, 1, 2, 3]]),
    p=st.sampled_from([1, 2]),
    channels=st.integers(2, 6),
    batch=batches,
    opset=st.sampled_from([9, 13, 22]),
    seed=seeds,
)
def test_random_norms_without_parameters_lose_channels(
    kind: str, axes: list[int], p: int, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = NormNet(opset, seed)
    x = net.op("MatMul", net.image(channels, batch), net.weight(4, 3, name="m"))
    if kind == "LpNormalization":
        axes = axes[-1:]
        net.op(kind, x, name="c", axis=axes[0], p=p)
    else:
        axes = axes if len(axes) > 1 else [0, 2, 3]
        net.op(kind, x, name="c", axes=axes)
    net.axes_op("ReduceSum", net.op("Sigmoid", "c"), [1, 2, 3], since=13, name="y")
    trial = check_gathered(net.model(), seed)
    for axis, site in ((1, ("p.w", 0)), (3, ("m", 1))):
        assert all(ties(trial.model, site, channels=trial.channels)[0])
        if axis in [a % 4 for a in axes]:
            assert why(trial.model, *site).startswith(f"is normalised by {kind} at ")


@pytest.mark.parametrize(("kind", "form"), [(k, f) for k, forms in FORMS.items() for f in forms])
@given(
    axis=st.sampled_from([1, -1]),
    channels=st.integers(2, 6),
    batch=batches,
    opset=st.sampled_from([9, 13, 22]),
    seed=seeds,
)
@settings(max_examples=15)
def test_random_norms_of_several_nodes_lose_channels(
    kind: str, form: str, axis: int, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = NormNet(opset, seed)
    x = net.op("MatMul", net.image(channels, batch), net.weight(4, channels, name="m"))
    net.written_out(kind, form, x, axis, 4, channels)
    net.consume("c", 4, axis, channels)
    trial = check_gathered(net.model(), seed, (kind,))
    site = ("p.w", 0) if axis == 1 else ("m", 1)
    assert all(ties(trial.model, site, channels=trial.channels)[0])
