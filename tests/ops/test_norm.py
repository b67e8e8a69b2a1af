"""BatchNormalization and InstanceNormalization: per-channel parameters go with their channel."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why


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
