"""Criteria that look at data: each against its definition, and where channels are measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from strategies import Net, value_of

import irprune
from irprune import IrpruneError, api
from irprune.backends.ort.runner import OrtRunner
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
from irprune.passes.scores.sites import measured_at

IMAGES = np.random.default_rng(1).normal(size=(7, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(7) % 4


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    from irprune.backends.torch.gradients import TorchDifferentiator

    with OrtRunner() as runner:
        yield Context(runner=lambda: runner, differentiator=TorchDifferentiator)


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


TOKENS = np.random.default_rng(2).normal(size=(6, 5, 3)).astype(np.float32)
IMPACT = np.float32([[1], [-2], [3], [-1], [2]])


def _of_tokens(layout: str, batch: int | str) -> Model:
    """A dense layer over five tokens, each with three numbers, then a weighted mean over them."""
    net = Net()
    x = net.input(batch, 5, 3)
    if layout == "tokens first":
        x = net.op("Transpose", x, perm=[1, 0, 2])
    elif layout == "channels first":
        x = net.op("Transpose", x, perm=[2, 1, 0])
    elif layout == "merged":
        x = net.op("Reshape", x, net.ints(-1, 3))
    elif layout == "merged, tokens first":
        x = net.op("Reshape", net.op("Transpose", x, perm=[1, 0, 2]), net.ints(-1, 3))
    if layout == "channels first":
        w, v = (
            net.constant(net.random.normal(size=s).astype(np.float32)) for s in [(3, 6), (6, 4)]
        )
        h = net.op("Relu", net.op("Einsum", x, w, equation="itn,io->otn"))
        y = net.op("Einsum", h, v, equation="itn,io->nto")
    else:
        h = net.op("Relu", net.op("MatMul", x, net.weight(3, 6)))
        y = net.op("MatMul", h, net.weight(6, 4))
    if layout == "merged":
        y = net.op("Reshape", y, net.ints(-1, 5, 4))
    elif layout == "merged, tokens first":
        y = net.op("Reshape", y, net.ints(5, -1, 4))
    first = layout.endswith("tokens first")
    weighed = net.op("Mul", y, net.constant(IMPACT[..., None] if first else IMPACT))
    net.op("ReduceMean", weighed, axes=[0 if first else 1], keepdims=0, name="y")
    return net.model()


def _of_tokens_by_torch(model: Model) -> dict[str, np.ndarray]:
    import torch

    w, v = (
        torch.from_numpy(np.array(value.const_value.numpy()))  # type: ignore[union-attr]
        for value in model.ir.graph.initializers.values()
        if value.shape in [(3, 6), (6, 4)]
    )
    a = (torch.from_numpy(TOKENS) @ w).relu().requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        (a @ v * torch.from_numpy(IMPACT)).mean(1), torch.from_numpy(LABELS[:6]), reduction="sum"
    )
    (slope,) = torch.autograd.grad(loss, a)
    numbers, product = a.detach().numpy(), (a * slope).detach().numpy()
    return {
        "mean-activation": numbers.mean((0, 1)),
        "sum-activation": numbers.sum(1).mean(0),
        "apoz": (numbers != 0).mean((0, 1)),
        "taylor": np.abs(product.mean(1)).mean(0),
        "fisher": (product.sum(1) ** 2).mean(0) / 2,
    }


@pytest.mark.parametrize("batch", ["N", 1, 3])
@pytest.mark.parametrize(
    "layout", ["plain", "tokens first", "channels first", "merged", "merged, tokens first"]
)
@pytest.mark.parametrize("criterion", [*get_args(Activations), *get_args(Sensitivities)])
def test_an_example_is_found_wherever_it_lies(
    criterion: Any, layout: str, batch: int | str, context: Context
) -> None:
    model = _of_tokens(layout, batch)
    channels = analyse(model.ir.graph)
    (group,) = coupled_groups(channels)
    samples = Samples({"x": TOKENS}, LABELS[:6], batch if isinstance(batch, int) else 4)
    found = Activity(model, channels, [group], criterion, samples, context).of(group)
    assert found is not None
    assert np.allclose(found, _of_tokens_by_torch(model)[criterion], rtol=1e-4)


def _queried(batch: int | str) -> Model:
    """Learned queries, the same for every example, scale what a convolution gives."""
    net = Net()
    learned = net.op("Tanh", net.weight(2, 3))
    queries = net.op("Relu", net.op("MatMul", learned, net.weight(3, 5)))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.input(batch, 3, 6, 6)))
    keys = net.op("MatMul", queries, net.weight(5, 3))
    net.op("MatMul", pooled, net.op("Transpose", keys, perm=[1, 0]), name="y")
    return net.model()


@pytest.mark.parametrize("criterion", [*get_args(Activations), *get_args(Sensitivities)])
def test_what_all_examples_share_counts_for_each(criterion: Any, context: Context) -> None:
    labels = LABELS % 2

    def scores(model: Model, batch: int) -> np.ndarray:
        channels = analyse(model.ir.graph)
        (group,) = coupled_groups(channels)
        samples = Samples({"x": IMAGES[:6]}, labels[:6], batch)
        found = Activity(model, channels, [group], criterion, samples, context).of(group)
        assert found is not None
        return found

    alone = scores(_queried(1), 1)
    assert np.allclose(scores(_queried("N"), 4), alone, rtol=1e-5)
    if criterion in ("mean-activation", "apoz"):
        assert np.allclose(scores(_queried(3), 3), alone, rtol=1e-5)
    else:
        with pytest.raises(IrpruneError, match="does not depend on the samples") as caught:
            scores(_queried(3), 3)
        assert caught.value.node is not None and "Relu" in caught.value.node


def test_attention_is_measured_at_its_scaled_queries(context: Context) -> None:
    import torch

    net = Net()
    x = net.input("N", 5, 3)
    q, k, v = (net.op("MatMul", x, net.weight(3, 6, name=f"{n}.w")) for n in "qkv")
    scaled = net.op("Mul", q, net.constant(np.float32(0.4)), name="scaled")
    scores = net.op("MatMul", scaled, net.op("Transpose", k, perm=[0, 2, 1]))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    net.op("ReduceMean", net.linear(mixed, 6, 4, "o"), axes=[1], keepdims=0, name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    (group,) = [g for g in coupled_groups(channels) if "q.w" in g.names]
    assert "scaled" in {site.name for site in measured_at(channels, group)}

    weights = {n: v.const_value for n, v in model.ir.graph.initializers.items()}
    a, b, c, d = (torch.from_numpy(np.array(weights[f"{n}.w"].numpy())) for n in "qkvo")  # type: ignore[union-attr]
    tokens = torch.from_numpy(TOKENS)
    query, key = (tokens @ a * 0.4).requires_grad_(), (tokens @ b).mT.requires_grad_()
    logits = ((query @ key).softmax(-1) @ (tokens @ c) @ d).mean(1)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[:6]), reduction="sum")
    slopes = torch.autograd.grad(loss, (query, key))
    of_query = ((query * slopes[0]).sum(1) ** 2).mean(0) / 2
    of_key = ((key * slopes[1]).sum(2) ** 2).mean(0) / 2
    samples = Samples({"x": TOKENS}, LABELS[:6])
    found = Activity(model, channels, [group], "fisher", samples, context).of(group)
    wanted = ((of_query + of_key) / 2).detach().numpy()
    assert found is not None and np.allclose(found, wanted, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": IMAGES}, "holds no array for x; it holds z"),
        ({"x": IMAGES.astype(np.float64)}, "float64"),
        ({"x": IMAGES[:, :2]}, "the model takes"),
        ({"x": IMAGES[:0]}, "or none"),
        ({"x": IMAGES, "y": LABELS[:3]}, "labels have shape"),
        ({"x": IMAGES, "y": LABELS * 1.0}, "labels have shape"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(IrpruneError, match=message):
        read_samples(str(tmp_path / "s.npz"), _net().ir.graph)


def test_a_lone_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(IrpruneError, match="a single array without a name"):
        read_samples(str(path), _net().ir.graph)


@pytest.mark.parametrize("name", ["labels", "label", "y", "y_train", "y_test"])
def test_labels_have_several_names(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "s.npz", x=IMAGES, **{name: LABELS})  # type: ignore[arg-type]
    samples = read_samples(str(tmp_path / "s.npz"), _net().ir.graph)
    assert samples.labels is not None and (samples.labels == LABELS).all()


@pytest.mark.parametrize(("batch", "full"), [(3, [3, 3]), (32, [32, 32]), ("N", [32, 32, 6])])
def test_a_fixed_batch_is_kept(tmp_path: Path, batch: int | str, full: list[int]) -> None:
    count = 70 if full[0] == 32 else 7
    x, y = np.resize(IMAGES, (count, *IMAGES.shape[1:])), np.resize(LABELS, count)
    np.savez(tmp_path / "s.npz", x_train=x, y_train=y)
    samples = read_samples(str(tmp_path / "s.npz"), _net(batch).ir.graph)
    assert [len(feeds["x"]) for feeds in samples.batches()] == full
    assert samples.labels is not None and len(samples.labels) == sum(full)


@pytest.mark.parametrize("batch", [9, 32])
def test_too_few_samples_for_a_fixed_batch_are_refused(tmp_path: Path, batch: int) -> None:
    np.savez(tmp_path / "s.npz", x=IMAGES)
    with pytest.raises(IrpruneError, match=f"do not fill the model's batch of {batch}"):
        read_samples(str(tmp_path / "s.npz"), _net(batch).ir.graph)


def test_inputs_that_fix_different_batches_are_refused(tmp_path: Path) -> None:
    net = Net()
    net.op("Add", net.input(1, 3, name="a"), net.input(2, 3, name="b"), name="y")
    np.savez(tmp_path / "s.npz", a=np.ones((4, 3), np.float32), b=np.ones((4, 3), np.float32))
    with pytest.raises(IrpruneError, match="fix different batches: 1 and 2"):
        read_samples(str(tmp_path / "s.npz"), net.model().ir.graph)


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
