"""Corrupted compactions: every one is found out, on trained, fresh and degenerate networks.

Two verdicts are acceptable for a mutation: `failed`, and `inconclusive` where the weights cannot
show the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from mutations import MUTATIONS, numbers, store
from strategies import Net, compacted, random_keep

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.frontends.onnx import load
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.plan import Plan
from irprune.proof import agreement
from irprune.proof.prover import Proof, prove

Case = tuple[ir.Model, ir.Model, Plan]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


# Networks


def branches() -> Model:
    """Split, BatchNormalization, a grouped convolution with shuffle, Concat, Pad and a head."""
    net = Net(seed=1)
    net.conv(net.input("N", 3, 8, 8), 3, 16, 3, 3, name="stem", pads=[1] * 4)
    parameters = [net.weight(16, name=f"bn.{k}") for k in ("scale", "shift", "mean")]
    net.op("BatchNormalization", "stem", *parameters, net.weight(16, low=0.5), name="bn")
    left, right = net.split("Split", net.op("Relu", "bn"), names=["left", "right"], axis=1)
    net.conv(left, 8, 12, 3, 3, name="a", pads=[1] * 4)
    w, b = net.weight(12, 8, 1, 1, name="b.w"), net.weight(12, name="b.b")
    net.op("Conv", right, w, b, name="b")
    joined = net.op("Concat", net.op("LeakyRelu", "a", alpha=0.1), "b", name="joined", axis=1)
    net.conv(joined, 24, 24, 3, 3, name="grouped", group=2, pads=[1] * 4)
    groups = net.op("Reshape", "grouped", net.ints(-1, 2, 12, 8, 8))
    shuffled = net.op("Transpose", groups, perm=[0, 2, 1, 3, 4])
    net.op("Reshape", shuffled, net.ints(-1, 24, 8, 8), name="shuffled")
    net.conv("shuffled", 24, 24, 3, 3, name="depthwise", group=24)
    net.op("Relu", "depthwise", name="r")
    net.op("Add", net.conv("r", 24, 24, 1, 1, name="c"), "r", name="sum")
    net.op("Pad", "sum", net.ints(0, 0, 1, 0, 0, 0, 0, 0), name="padded")
    pooled = net.op("GlobalAveragePool", net.op("MaxPool", "padded", kernel_shape=[2, 2]))
    hidden = net.op("Gemm", net.op("Flatten", pooled), net.weight(24, 20), net.weight(20))
    net.op("Gemm", net.op("Relu", hidden), net.weight(20, 5), net.weight(5), name="y")
    return net.model()


def positions() -> Model:
    """Slice, Gather, Pad along channels, Transpose and matrix products."""
    net = Net(seed=2)
    net.conv(net.input("N", 3, 6, 6), 3, 16, 3, 3, name="a", pads=[1] * 4)
    net.op("Slice", net.op("Relu", "a", name="r"), net.ints(4), net.ints(12), net.ints(1), name="s")
    net.op("Pad", net.conv("s", 8, 8, 1, 1, name="b"), net.ints(0, 4, 0, 0, 0, 4, 0, 0), name="p")
    net.op("Add", "p", "r", name="sum")
    net.op("Gather", "sum", net.ints(9, 3, 5, 0, 12, 7), name="g", axis=1)
    tokens = net.op("Reshape", "g", net.ints(-1, 6, 36), name="flat")
    net.op("Transpose", tokens, perm=[0, 2, 1], name="t")
    net.linear(net.op("Relu", net.linear("t", 6, 12, name="l")), 12, 6, name="m")
    net.op("Softmax", net.op("Reshape", "m", net.ints(-1, 6, 6, 6), name="image"), name="y", axis=3)
    return net.model()


def filled(model: Model, value: float) -> Model:
    """The model with one number in all weights."""
    for initializer in model.ir.graph.initializers.values():
        array = numbers(initializer)
        if np.issubdtype(array.dtype, np.floating):
            store(initializer, np.full_like(array, value))
    return model


def trained(path: Path) -> Model:
    model = load(path)
    Normalize().run(model, Context())
    return model


def pruned(model: Model, seed: int = 3) -> Case:
    """A base, what a random plan makes of it, and the plan."""
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, seed))
    return model.ir, compacted(model, plan).ir, plan


def verdicts(case: Case, context: Context) -> dict[str, Proof]:
    """The proof of every mutation that finds a place."""
    base, small, plan = case
    proofs = {}
    for name, mutate in MUTATIONS.items():
        wrong = small.clone()
        if mutate(wrong.graph, base.graph, plan):
            proofs[name] = prove(base, wrong, plan, context)
    return proofs


def missed(proofs: dict[str, Proof]) -> dict[str, str]:
    return {name: str(proof) for name, proof in proofs.items() if proof.verdict != "failed"}


# Tests


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize(("network", "ways"), [(branches, 22), (positions, 14)])
def test_mutations_of_fresh_networks_fail(
    network: Callable[[], Model], ways: int, seed: int, context: Context
) -> None:
    case = pruned(network(), seed)
    assert prove(*case, context).verdict == "proved"
    proofs = verdicts(case, context)
    assert len(proofs) >= ways
    assert missed(proofs) == {}


@pytest.mark.parametrize("network", [branches, positions])
def test_the_numbers_alone_find_wrong_weights(
    network: Callable[[], Model], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "weights", lambda base, pruned, plan: iter(()))
    assert missed(verdicts(pruned(network()), context)) == {}


@pytest.mark.parametrize("value", [0, 1, -0.5])
@pytest.mark.parametrize("network", [branches, positions])
def test_mutations_of_degenerate_networks_are_never_proved(
    network: Callable[[], Model], value: float, context: Context
) -> None:
    case = pruned(filled(network(), value))
    assert prove(*case, context).verdict == "inconclusive"
    proofs = verdicts(case, context)
    assert {proof.verdict for proof in proofs.values()} == {"failed", "inconclusive"}


def test_mutations_of_a_trained_network_fail(context: Context) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
    case = pruned(trained(example))
    assert prove(*case, context).verdict == "proved"
    proofs = verdicts(case, context)
    assert len(proofs) >= 16
    assert missed(proofs) == {}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "size"), [("resnet20_cifar10", 32), ("mobilenetv2_imagenet", 224)]
)
def test_mutations_of_shared_networks_fail(
    name: str, size: int, shared: Path, context: Context
) -> None:
    case = pruned(trained(shared / "models" / "onnx" / f"{name}.onnx"))
    context = Context(runner=context.runner, shapes={"input": (1, 3, size, size)})
    assert prove(*case, context).verdict == "proved"
    proofs = verdicts(case, context)
    assert len(proofs) >= 10
    assert missed(proofs) == {}
