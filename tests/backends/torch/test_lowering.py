"""Lowered networks: the names, the numbers and the gradients of what they came from."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import Net, batches, feeds_of, relative_error, run, seeds, widths
from torch import Tensor, nn
from torch.nn import functional
from torch_devices import DEVICES

import irprune
from irprune import IrpruneError, Model
from irprune.backends.torch import to_torch


class Small(nn.Module):
    """Convolutions with BatchNorm, a residual sum, a linear layer without and one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
        self.hidden = nn.Linear(8, 6, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.bn(self.body(x)) + x)
        return self.head(functional.gelu(self.hidden(x.mean((2, 3)))))


def _trained(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The loss of one step, its gradients by name, and the state after it."""
    module = copy.deepcopy(module).train()
    loss = functional.cross_entropy(module(x), torch.arange(len(x), device=x.device) % 3)
    loss.backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, module.state_dict()


def _check_outputs(proto: onnx.ModelProto, seed: int, tolerance: float = 2e-5) -> None:
    feeds = feeds_of(proto, seed)
    module = to_torch(Model.from_proto(proto))
    with torch.no_grad():
        found = module(*(torch.from_numpy(feeds[value.name]) for value in proto.graph.input))
    found = found if isinstance(found, tuple) else (found,)
    expected = run(proto, feeds)
    for value, actual in zip(proto.graph.output, found, strict=True):
        assert relative_error(actual.numpy(), expected[value.name]) <= tolerance


@pytest.mark.parametrize("device", DEVICES)
def test_a_module_comes_back_with_its_names_its_loss_and_its_gradients(device: str) -> None:
    torch.manual_seed(0)
    module, x = Small(), torch.randn(4, 3, 6, 6)
    module(x)  # statistics that are not the initial ones
    lowered = to_torch(irprune.from_torch(module, (x,)))
    assert not lowered.training
    assert lowered.state_dict().keys() == module.state_dict().keys()
    assert dict(lowered.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert isinstance(lowered.get_submodule("stem.0"), nn.Conv2d)
    assert isinstance(lowered.get_submodule("bn"), nn.BatchNorm2d)
    assert isinstance(lowered.get_submodule("head"), nn.Linear)
    module, lowered, x = module.to(device), lowered.to(device), x.to(device)
    for batch in (2, 4):
        loss, gradients, state = _trained(module, x[:batch])
        same_loss, same_gradients, same_state = _trained(lowered, x[:batch])
        torch.testing.assert_close(same_loss, loss)
        torch.testing.assert_close(same_gradients, gradients)
        torch.testing.assert_close(same_state, state)


@given(batches, widths, widths, st.booleans(), st.sampled_from([1, 2]), seeds)
def test_convolutions_equal_onnxruntime(
    batch: int | str, inner: int, outer: int, uneven: bool, stride: int, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.image(inner, batch)
    pads = [0, 1, 1, 0] if uneven else [1, 1, 1, 1]
    x = net.conv(x, inner, outer, 3, 3, pads=pads, strides=[stride, stride])
    scale, shift, mean = (net.weight(outer) for _ in range(3))
    x = net.op("BatchNormalization", x, scale, shift, mean, net.weight(outer, low=0.5))
    x = net.op("MaxPool", net.op("Relu", x), kernel_shape=[2, 2], pads=[1, 1, 1, 1])
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.op("Gemm", x, net.weight(outer, 3), net.weight(3), name="y")
    _check_outputs(net.proto("y"), seed)


def test_names_that_torch_cannot_carry_are_those_of_the_state() -> None:
    net = Net()
    x = net.input("N", 2, 4, 4)
    x = net.op("Conv", x, net.weight(3, 2, 1, 1, name="a..w"), net.weight(3, name="forward"))
    net.op("Mul", x, net.weight(1, 3, 1, 1, name="a"), name="y")
    model = net.model("y")
    lowered = to_torch(model)
    assert set(lowered.state_dict()) == {"a..w", "forward", "a"}
    assert {name for name, _ in lowered.named_parameters()} == {"a..w", "forward", "a"}
    assert set(lowered.initializer_names.values()) >= {"a..w", "forward"}
    other = copy.deepcopy(lowered)
    state = {name: torch.ones_like(tensor) for name, tensor in lowered.state_dict().items()}
    assert not any(other.load_state_dict(state))
    assert all(tensor.eq(1).all() for tensor in other.state_dict().values())
    wrapped = nn.Sequential(other)
    assert set(wrapped.state_dict()) == {"0.a..w", "0.forward", "0.a"}
    assert not any(wrapped.load_state_dict(wrapped.state_dict()))


class Apart(nn.Module):
    """A layer whose bias passes through another op first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.fc.weight) + functional.relu(self.fc.bias)


def test_a_bias_that_another_op_reads_keeps_its_name() -> None:
    module, x = Apart(), torch.randn(4, 2)
    lowered = to_torch(irprune.from_torch(module, (x,)))
    assert lowered.state_dict().keys() == module.state_dict().keys()
    torch.testing.assert_close(_trained(lowered, x), _trained(module, x))


class Standardised(nn.Module):
    """A convolution whose weight is standardised by a BatchNorm, as in NF-ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gain = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        flat = self.conv.weight.reshape(1, 4, -1)
        made = functional.batch_norm(flat, None, None, self.gain, None, True, 0.0, 1e-5)
        weight = made.reshape(self.conv.weight.shape)
        return functional.conv2d(x, weight, self.conv.bias).mean((2, 3))


def test_a_standardised_weight_has_its_gradient() -> None:
    torch.manual_seed(0)
    module, x = Standardised(), torch.randn(2, 3, 6, 6)
    lowered = to_torch(irprune.from_torch(module, (x,)))
    torch.testing.assert_close(_trained(lowered, x), _trained(module, x))


def test_a_constant_of_five_axes_does_not_keep_channels_last_away() -> None:
    net = Net()
    x = net.op("Reshape", net.input("N", 4, 3, 3), net.ints(0, 2, 2, 3, 3))
    mask = net.constant(np.tri(3, dtype=np.float32)[None, None, None])
    y = net.op("Mul", x, mask)
    proto = net.proto(y)
    lowered = to_torch(Model.from_proto(proto)).to(memory_format=torch.channels_last)
    feeds = feeds_of(proto, 0)
    (found,) = (lowered(torch.from_numpy(value)) for value in feeds.values())
    assert relative_error(found.numpy(), run(proto, feeds)[y]) == 0


def test_trained_weights_come_back_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    module, x = Small(), torch.randn(4, 3, 6, 6)
    model = irprune.run("normalize", irprune.from_torch(module, (x,)), verify=False).model
    before = [(node.op_type, [v.name for v in node.outputs]) for node in model.ir.graph]
    lowered = to_torch(model).train()
    optimizer = torch.optim.SGD(lowered.parameters(), 0.1)
    lowered(x).square().mean().backward()
    optimizer.step()
    model.update_from(lowered)
    assert before == [(node.op_type, [v.name for v in node.outputs]) for node in model.ir.graph]
    again = to_torch(model)
    torch.testing.assert_close(again.state_dict(), lowered.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(x), lowered.eval()(x))


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [
    lambda module: torch.compile(module, backend="eager"),
    nn.DataParallel,
    lambda module: torch.compile(nn.DataParallel(module), backend="eager"),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("name", ["w", "module.w", "_orig_mod.module.w", "not a path"])
def test_weights_come_back_out_of_wrappers(
    wrap: Callable[[nn.Module], nn.Module], name: str
) -> None:
    net = Net()
    net.op("Gemm", net.input("N", 2), net.weight(2, 3, name=name), name="y")
    model = net.model("y")
    lowered = to_torch(model)
    for module in (lowered, wrap(lowered)):
        with torch.no_grad():
            lowered.get_parameter(name).add_(1)
        model.update_from(module)
        found = torch.from_numpy(model.tensors()[name].numpy())
        torch.testing.assert_close(found, lowered.get_parameter(name).detach())
    lowered.register_parameter("v", nn.Parameter(torch.zeros(3, 3)))
    with pytest.raises(IrpruneError, match=r"no initializer [\w.]+\.v;"):
        model.update_from(wrap(lowered))


def test_updating_keeps_the_dtype_and_refuses_other_shapes() -> None:
    net = Net()
    x = net.input("N", 2)
    net.op("Gemm", x, net.weight(2, 3, name="w"), name="y")
    model = net.model("y")
    lowered = to_torch(model).to(torch.bfloat16)
    model.update_from(lowered)
    assert model.ir.graph.initializers["w"].const_value.numpy().dtype == np.float32
    other = nn.Module()
    other.register_parameter("w", nn.Parameter(torch.zeros(3, 3)))
    with pytest.raises(IrpruneError, match=r"w has the shape \[3, 3\] in the module and \[2, 3\]"):
        model.update_from(other)
    other = nn.Module()
    other.register_parameter("v", nn.Parameter(torch.zeros(3, 3)))
    with pytest.raises(IrpruneError, match="no initializer v"):
        model.update_from(other)


@pytest.mark.parametrize(
    ("held", "missing"), [([], "b1, b2, b3, b4 and 5 more"), (["w", "b1", "b2", "b3", "b4"], "w1")]
)
def test_a_module_without_the_parameters_is_refused(held: list[str], missing: str) -> None:
    net = Net()
    x = net.op("MatMul", net.input("N", 2), net.weight(2, 2, name="w"))
    for k in range(1, 5):
        bias = net.weight(2, name=f"b{k}")
        x = net.op("MatMul", net.op("Add", x, bias), net.weight(2, 2, name=f"w{k}"))
    model = net.model(x)
    state = to_torch(model).state_dict()
    other = nn.ParameterDict({name: nn.Parameter(torch.zeros_like(state[name])) for name in held})
    with pytest.raises(IrpruneError, match=f"the module holds no {missing}"):
        model.update_from(other)
    torch.testing.assert_close(to_torch(model).state_dict(), state)


@pytest.mark.parametrize("pipeline", ["normalize", "normalize, prune{ratio=0.3}, compact"])
def test_counters_come_back_into_the_state_dict(pipeline: str) -> None:
    torch.manual_seed(0)
    module, x = Small(), torch.randn(4, 3, 6, 6)
    result = irprune.run(pipeline, irprune.from_torch(module, (x,)), verify=False)
    untouched = result.model.clone()
    lowered = to_torch(result.model).train()
    for _ in range(3):
        lowered(x)
    result.model.update_from(lowered)
    assert irprune.export_state_dict(result)["bn.num_batches_tracked"] == 3
    assert to_torch(result.model).get_buffer("bn.num_batches_tracked") == 3
    assert to_torch(untouched).get_buffer("bn.num_batches_tracked") == 0


def test_a_pickled_network_keeps_names_and_numbers() -> None:
    net = Net()
    x = net.op("MatMul", net.input("N", 4), net.weight(4, 6, name="w"))
    x = net.op("Relu", net.op("Add", x, net.weight(6, name="b")))
    x = net.op("Add", x, net.constant(np.tri(6, dtype=np.float32)[2:3]))
    model = net.model(net.op("ReduceL2", x, axes=[1]))
    lowered = to_torch(model)
    file = io.BytesIO()
    torch.save(lowered.train(), file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert other.training
    assert other.meta == lowered.meta
    torch.testing.assert_close(other.get_parameter("w"), lowered.get_parameter("w"))
    torch.testing.assert_close(other.state_dict(), lowered.state_dict())
    torch.testing.assert_close(other(torch.ones(2, 4)), lowered(torch.ones(2, 4)))
    model.update_from(other)


def test_a_cumulative_average_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=None))
    model = irprune.from_torch(module, (torch.randn(2, 3, 4, 4),))
    with pytest.raises(IrpruneError, match="a cumulative average"):
        to_torch(model)


def test_what_cannot_be_lowered_is_named_at_once() -> None:
    net = Net()
    x = net.op("Bernoulli", net.input("N", 2), name="a")
    net.op("Multinomial", x, name="y")
    with pytest.raises(IrpruneError, match=r"2 nodes.*a.Bernoulli \(Bernoulli\).*y.Multinomial"):
        to_torch(Model.from_proto(net.proto("y")))


@pytest.mark.parametrize(
    ("opset", "names", "attributes"),
    [
        (15, ("y", "mean", "variance"), {"training_mode": 1}),
        (9, ("y", "mean", "variance", "saved", "other"), {}),
    ],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_statistics_of_the_batch_at_inference_are_refused(
    opset: int, names: tuple[str, ...], attributes: dict[str, int], outputs: int
) -> None:
    net = Net(opset=opset)
    parameters = [net.weight(3, low=0.5) for _ in range(4)]
    x = net.image(3)
    net.split("BatchNormalization", x, *parameters, names=names, **attributes)
    with pytest.raises(IrpruneError, match="export the network in eval mode"):
        to_torch(net.model(*names[:outputs]))


def test_an_output_that_no_rule_lowers_is_named() -> None:
    net = Net()
    x, weight = net.input("N", 3), net.weight(3)
    net.split("LayerNormalization", x, weight, names=("y", "mean"))
    with pytest.raises(IrpruneError, match=r"y.LayerNormalization.*output mean has no lowering"):
        to_torch(net.model("y", "mean"))
