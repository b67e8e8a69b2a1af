"""Criteria that look at data where the batch is no axis of its own, or not the first one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from strategies import Net

from irprune import IrpruneError
from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.scores.activity import Activations, Activity, Sensitivities
from irprune.passes.scores.calibration import Samples
from irprune.passes.scores.sites import measured_at

LABELS = np.arange(6) % 4


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    from irprune.backends.torch.gradients import TorchDifferentiator

    with OrtRunner() as runner:
        yield Context(runner=lambda: runner, differentiator=TorchDifferentiator)


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
        (a @ v * torch.from_numpy(IMPACT)).mean(1), torch.from_numpy(LABELS), reduction="sum"
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
    samples = Samples({"x": TOKENS}, LABELS, batch if isinstance(batch, int) else 4)
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
    images = np.random.default_rng(1).normal(size=(6, 3, 6, 6)).astype(np.float32)
    labels = LABELS % 2

    def scores(model: Model, batch: int) -> np.ndarray:
        channels = analyse(model.ir.graph)
        (group,) = coupled_groups(channels)
        samples = Samples({"x": images}, labels, batch)
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
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS), reduction="sum")
    slopes = torch.autograd.grad(loss, (query, key))
    of_query = ((query * slopes[0]).sum(1) ** 2).mean(0) / 2
    of_key = ((key * slopes[1]).sum(2) ** 2).mean(0) / 2
    samples = Samples({"x": TOKENS}, LABELS)
    found = Activity(model, channels, [group], "fisher", samples, context).of(group)
    wanted = ((of_query + of_key) / 2).detach().numpy()
    assert found is not None and np.allclose(found, wanted, rtol=1e-4)
