"""Criteria that look at data: each against its definition, and where channels are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from strategies import Net, value_of

import irprune
from irprune import IrpruneError, api
from irprune.channels import analyse
from irprune.groups import Group, coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.scores.activity import (
    DATA_CRITERIA,
    Activations,
    Activity,
    Sensitivities,
)
from irprune.passes.scores.calibration import Samples, read_samples

IMAGES = np.random.default_rng(1).normal(size=(7, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(7) % 4


def _net(batch: Any = "N") -> Model:
    """conv -> relu -> pool -> flatten -> linear."""
    net = Net()
    conv = net.op("Conv", net.input(batch, 3, 6, 6), net.weight(5, 3, 3, 3, name="w"), name="c")
    relu = net.op("Relu", conv, name="r")
    pooled = net.op("MaxPool", relu, kernel_shape=[2, 2], strides=[2, 2], name="p")
    flat = net.op("Flatten", pooled, name="f")
    net.op("Gemm", flat, net.weight(20, 4, name="v"), name="y")
    return net.model()


def _scores(
    model: Model, criterion: Any, context: Context, batch: int = 3, group: int = 0
) -> np.ndarray:
    channels = analyse(model.ir.graph)
    groups = coupled_groups(channels)
    samples = Samples({"x": IMAGES}, LABELS, batch)
    found = Activity(model, channels, groups, criterion, samples, context).of(groups[group])
    assert found is not None
    return found


def _convolved(model: Model) -> Any:
    import torch

    weights = model.ir.graph.initializers["w"].const_value
    assert weights is not None
    return torch.nn.functional.conv2d(
        torch.from_numpy(IMAGES), torch.from_numpy(np.array(weights.numpy()))
    )


def _activations(model: Model) -> np.ndarray:
    found: np.ndarray = _convolved(model).relu().numpy()
    return found


def test_the_mean_is_taken_after_the_non_linearity_and_before_the_pool(context: Context) -> None:
    model = _net()
    wanted = _activations(model)
    found = _scores(model, "mean-activation", context)
    assert np.allclose(found, wanted.mean((0, 2, 3)), atol=1e-5)


def test_the_formula_sums_over_space(context: Context) -> None:
    model = _net()
    found = _scores(model, "sum-activation", context)
    assert np.allclose(found, _activations(model).sum((2, 3)).mean(0), rtol=1e-4)


def test_where_it_can_be_negative_an_activation_counts_by_its_size(context: Context) -> None:
    net = Net()
    narrow = net.op("Conv", net.input("N", 3, 6, 6), net.weight(5, 3, 3, 3, name="w"), name="c")
    net.op("Conv", narrow, net.weight(4, 5, 3, 3), name="y")
    model = net.model()
    linear = _convolved(model).numpy()
    assert (linear.mean((0, 2, 3)) < 0).any()
    found = _scores(model, "mean-activation", context)
    assert np.allclose(found, np.abs(linear).mean((0, 2, 3)), atol=1e-5)
    found = _scores(model, "sum-activation", context)
    assert np.allclose(found, np.abs(linear).sum((2, 3)).mean(0), rtol=1e-4)


def test_apoz_counts_zeros(context: Context) -> None:
    model = _net()
    found = _scores(model, "apoz", context)
    assert np.allclose(found, (_activations(model) > 0).mean((0, 2, 3)), atol=1e-6)


def _by_torch(model: Model) -> tuple[Any, Any, Any]:
    """Activation, its gradient, and the weight with its gradient, of summed losses."""
    import torch

    w, v = (
        torch.from_numpy(np.array(model.ir.graph.initializers[n].const_value.numpy()))  # type: ignore[union-attr]
        for n in ("w", "v")
    )
    w.requires_grad_()
    relu = torch.nn.functional.conv2d(torch.from_numpy(IMAGES), w).relu()
    relu.retain_grad()
    logits = torch.nn.functional.max_pool2d(relu, 2).flatten(1) @ v
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS), reduction="sum")
    loss.backward()
    return relu, relu.grad, w


def test_taylor_and_fisher(context: Context) -> None:
    model = _net()
    relu, slope, _ = _by_torch(model)
    product = (relu * slope).detach().numpy()
    taylor = np.abs(product.mean((2, 3))).mean(0)
    fisher = (product.sum((2, 3)) ** 2).mean(0) / 2
    assert np.allclose(_scores(model, "taylor", context), taylor, rtol=1e-4)
    assert np.allclose(_scores(model, "fisher", context), fisher, rtol=1e-4)


def _flattened(*kinds: str) -> Model:
    """Two convolutions, of 16 and 36 positions, side by side along one axis."""
    net = Net()
    parts = []
    for width, kernel in ((5, 3), (2, 1)):
        part = net.op("Conv", "x", net.weight(width, 3, kernel, kernel))
        for kind in kinds[:2]:
            part = net.op(kind, part)
        parts.append(part)
    net.input("N", 3, 6, 6)
    x = net.op("Concat", *parts, axis=1)
    for kind in kinds[2:]:
        x = net.op(kind, x)
    net.op("Gemm", x, net.weight(152, 4), name="y")
    return net.model()


@pytest.mark.parametrize("criterion", [*get_args(Activations), *get_args(Sensitivities)])
def test_positions_along_the_axis_of_the_channels_are_positions(
    criterion: Any, context: Context
) -> None:
    wide, flat = _flattened("Relu", "Flatten"), _flattened("Identity", "Flatten", "Relu")
    for group in range(2):
        wanted = _scores(wide, criterion, context, group=group)
        assert np.allclose(_scores(flat, criterion, context, group=group), wanted, rtol=1e-4)


def test_what_torch_does_not_compute_is_refused_by_name(context: Context) -> None:
    net = Net()
    c = net.conv(net.input("N", 3, 6, 6), 3, 5, name="c")
    net.op("Flatten", net.conv(net.op("Identity", c, name="same"), 5, 4, 6, 6), name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    samples = Samples({"x": IMAGES}, LABELS)
    with pytest.raises(IrpruneError, match="same has no counterpart in torch") as caught:
        Activity(model, channels, coupled_groups(channels), "taylor", samples, context)
    assert caught.value.node is not None and "Identity" in caught.value.node
    assert caught.value.mend is not None and 'skip="c.w"' in caught.value.mend


def test_gradient_and_hessian(context: Context) -> None:
    model = _net()
    _, _, w = _by_torch(model)
    gradient = np.abs(w.grad.numpy() / len(IMAGES)).sum((1, 2, 3))
    assert np.allclose(_scores(model, "gradient", context), gradient, rtol=1e-4)
    whole = (w.grad.numpy() ** 2 / len(IMAGES) ** 2 * w.detach().numpy() ** 2 / 2).sum((1, 2, 3))
    assert np.allclose(_scores(model, "hessian", context, batch=7), whole * 7, rtol=1e-4)


@pytest.mark.parametrize(("aggregate", "plain"), [("mean", True), ("max", False)])
def test_what_one_class_has_in_all_rows_of_a_weight_is_its_slice(
    aggregate: Any, plain: bool, context: Context
) -> None:
    """A grouped convolution, four rows of which read each channel, beside a plain one or none."""
    import torch

    net = Net()
    c = net.conv(net.input("N", 3, 6, 6), 3, 4, name="c")
    read = net.conv(c, 4, 8, 6, 6, name="g", group=2)
    if plain:
        read = net.op("Add", read, net.conv(c, 4, 8, 6, 6, name="p"))
    net.op("Flatten", read, name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    (group,) = coupled_groups(channels)
    samples = Samples({"x": IMAGES}, LABELS)
    found = Activity(
        model, channels, [group], "gradient", samples, context, "consumers", aggregate
    ).of(group)

    numbers = {n: v.const_value for n, v in model.ir.graph.initializers.items()}
    w, *readers = (torch.from_numpy(np.array(v.numpy())) for v in numbers.values() if v is not None)
    conv = torch.nn.functional.conv2d
    made = conv(torch.from_numpy(IMAGES), w)
    parts = [conv(made, r.requires_grad_(), groups=4 // r.shape[1]) for r in readers]
    loss = torch.nn.functional.cross_entropy(sum(parts).flatten(1), torch.from_numpy(LABELS))
    of_g, *of_p = (slope.abs().numpy() for slope in torch.autograd.grad(loss, readers))
    slices = [of_g.reshape(2, 4, 2, -1).sum((1, 3)).ravel(), *(p.sum((0, 2, 3)) for p in of_p)]
    wanted = np.mean(slices, axis=0)
    assert found is not None and np.allclose(found, wanted, rtol=1e-4)


def test_the_pipeline_prunes_by_activations_of_a_file(tmp_path: Path) -> None:
    """The channels with the smallest mean activation go."""
    model = _net()
    np.savez(tmp_path / "calib.npz", x=IMAGES)
    data = str(tmp_path / "calib.npz")
    pipeline = f'normalize, prune{{criterion=mean-activation data="{data}" ratio=0.4}}, compact'
    result = api.run(pipeline, model)
    kept = result.plan.axes["w"][0]
    least = np.argsort(_activations(model).mean((0, 2, 3)))[:2]
    assert set(np.flatnonzero(~np.asarray(kept))) == set(least)
    assert value_of(result.model, "w").shape[0] == 3


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("prune{criterion=apoz ratio=0.2}", "needs samples"),
        ('prune{criterion=l1 data="x.npz" ratio=0.2}', "looks at no data"),
        ('prune{criterion=apoz data="none.npz" ratio=0.2}', "none.npz"),
    ],
)
def test_criterion_and_data_must_agree(pipeline: str, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        api.run(f"{pipeline}, compact", _net(), verify=False)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
@pytest.mark.parametrize(
    ("labels", "reason", "mend"),
    [
        ({}, "needs labels", "add an array y"),
        ({"y": LABELS + 1}, "is no class of the model", "from 0 to 3"),
        ({"y": LABELS - 1}, "is no class of the model", "from 0 to 3"),
    ],
)
def test_labels_that_a_criterion_cannot_use_are_refused_in_their_file(
    criterion: str, labels: dict[str, np.ndarray], reason: str, mend: str, tmp_path: Path
) -> None:
    data = str(tmp_path / "s.npz")
    np.savez(data, x=IMAGES, **labels)  # type: ignore[arg-type]
    _net().save(tmp_path / "net.onnx")
    text = f'prune{{criterion={criterion} data="{data}" ratio=0.2}}, compact'
    with pytest.raises(IrpruneError, match=reason) as caught:
        api.run(text, irprune.load(tmp_path / "net.onnx"), verify=False)
    assert caught.value.file == data
    assert caught.value.mend is not None and mend in caught.value.mend


@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_a_graph_without_channels_asks_for_nothing(criterion: Any, context: Context) -> None:
    net = Net()
    net.op("Relu", net.input("N", 3, 6, 6), name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    Activity(model, channels, [], criterion, Samples({"x": IMAGES}, LABELS), context)


def test_an_error_on_the_way_names_the_model(tmp_path: Path, context: Context) -> None:
    net = Net()
    rows = net.op("Gather", net.weight(4, 3), net.input("N", dtype=TensorProto.INT64), name="g")
    net.op(
        "MatMul",
        net.op("Relu", net.op("MatMul", rows, net.weight(3, 5))),
        net.weight(5, 2),
        name="y",
    )
    net.model().save(tmp_path / "net.onnx")
    model = irprune.load(tmp_path / "net.onnx")
    np.savez(tmp_path / "s.npz", x=np.arange(9))
    data = tmp_path / "s.npz"
    with pytest.raises(IrpruneError, match="out of data bounds") as caught:
        api.run(f'prune{{criterion=apoz data="{data}" ratio=0.2}}, compact', model, verify=False)
    assert caught.value.file == tmp_path / "net.onnx"


def _half(dtype: Any, given: int) -> Model:
    """Two dense layers of numbers that float16 and bfloat16 hold exactly, computed in `dtype`."""
    random = np.random.default_rng(0)
    net = Net()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = net.op("Cast", net.input("N", 3, dtype=given), to=kind)
    for name, shape in (("w", (3, 5)), ("v", (5, 4))):
        weight = net.constant((random.integers(-8, 8, shape) / 4).astype(dtype), name)
        x = net.op("Relu", net.op("MatMul", x, weight))
    net.op("Cast", x, to=TensorProto.FLOAT, name="y")
    return net.model()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_half_precision_is_measured_in_float32(
    criterion: Any, dtype: Any, tmp_path: Path, context: Context
) -> None:
    x = np.float32(np.random.default_rng(3).integers(-8, 8, (7, 3)) / 4)
    np.savez(tmp_path / "s.npz", x=x, y=LABELS)

    def scores(dtype: Any, given: int) -> np.ndarray:
        model = _half(dtype, given)
        channels = analyse(model.ir.graph)
        (group,) = coupled_groups(channels)
        samples = read_samples(str(tmp_path / "s.npz"), model.ir.graph)
        found = Activity(model, channels, [group], criterion, samples, context).of(group)
        assert found is not None
        return found

    wanted = scores(np.float32, TensorProto.FLOAT)
    assert np.array_equal(scores(dtype, TensorProto.FLOAT), wanted)
    if dtype is ml_dtypes.bfloat16:  # which no file of arrays holds
        assert np.array_equal(scores(dtype, TensorProto.BFLOAT16), wanted)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_numbers_must_be_finite(criterion: Any, number: float, context: Context) -> None:
    model, images = _net(), IMAGES.copy()
    images[2, 1] = number
    channels = analyse(model.ir.graph)
    samples = Samples({"x": images}, LABELS)
    with pytest.raises(IrpruneError, match="is NaN or infinite on the samples"):
        Activity(model, channels, coupled_groups(channels), criterion, samples, context)


def test_gradients_need_labels_and_backends(context: Context) -> None:
    model = _net()
    channels = analyse(model.ir.graph)
    groups: list[Group] = coupled_groups(channels)
    samples = Samples({"x": IMAGES})
    with pytest.raises(IrpruneError, match="needs labels"):
        Activity(model, channels, groups, "taylor", samples, context)
    with pytest.raises(IrpruneError, match="needs onnxruntime"):
        Activity(model, channels, groups, "apoz", samples, Context())
    with pytest.raises(IrpruneError, match="need torch"):
        Activity(model, channels, groups, "taylor", Samples({"x": IMAGES}, LABELS), Context())
