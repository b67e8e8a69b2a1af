"""Optimizer state after pruning: every tensor sliced as its parameter was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from branch_nets import Blocks, emptying
from hypothesis import given, settings
from strategies import Net, compacted, kept_part, random_keep, seeds
from torch import nn
from torch_devices import DEVICES

from irprune import IrpruneError, Plan, api
from irprune.backends.torch import carry_optimizer, to_torch
from irprune.channels import analyse
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact
from irprune.roles import PARAMETER, TRAINED

OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
    lambda parameters: torch.optim.AdamW(parameters, 0.01, amsgrad=True),
    lambda parameters: torch.optim.NAdam(parameters, 0.01),
    lambda parameters: torch.optim.RMSprop(parameters, 0.01, momentum=0.9, centered=True),
    lambda parameters: torch.optim.Adagrad(parameters, 0.01),
]


def _net(seed: int) -> Model:
    """A grouped convolution, whose groups may keep other channels each, and a linear layer."""
    net = Net(seed=seed)
    x = net.conv(net.input("N", 2, 4, 4), 2, 6, 3, 3, name="a")
    x = net.conv(net.op("Relu", x), 6, 8, 1, 1, name="b", group=2)
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x)))
    net.op("Gemm", x, net.weight(3, 8, name="w"), net.weight(3, name="c"), name="y", transB=1)
    return net.model("y")


def _step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    device = next(module.parameters()).device
    x = torch.linspace(-1, 1, 64, device=device).reshape(2, 2, 4, 4)
    module(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", OPTIMIZERS)
@settings(max_examples=10)
@given(seed=seeds)
def test_state_is_sliced_like_the_parameters(
    make: Callable[[Any], torch.optim.Optimizer], device: str, seed: int
) -> None:
    model = _net(seed)
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, seed))
    old = to_torch(model).to(device)
    optimizer = make(old.parameters())
    for _ in range(2):
        _step(old, optimizer)
    model.update_from(old)
    new = to_torch(compacted(model, plan)).to(device)
    carried = carry_optimizer(optimizer, old, new, plan)
    before, after = dict(old.named_parameters()), dict(new.named_parameters())
    assert before.keys() == after.keys()
    for name, parameter in after.items():
        axes = plan.axes.get(name, {})
        wanted = kept_part(before[name].detach().cpu().numpy(), axes)
        np.testing.assert_array_equal(parameter.detach().cpu(), wanted)
        was, now = optimizer.state[before[name]], carried.state[parameter]
        assert was.keys() == now.keys() and was
        for key, value in was.items():
            if isinstance(value, torch.Tensor) and value.shape == before[name].shape:
                np.testing.assert_array_equal(now[key].cpu(), kept_part(value.cpu().numpy(), axes))
            else:
                assert now[key] == value
    _step(new, carried)


@pytest.mark.parametrize("wrap", [lambda net: torch.compile(net, backend="eager"), nn.DataParallel])
def test_wrapped_modules_are_looked_into(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = _net(0)
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, 0))
    old, new = to_torch(model), to_torch(compacted(model, plan))
    optimizer = torch.optim.Adam(wrap(old).parameters())
    _step(old, optimizer)
    carried = carry_optimizer(optimizer, wrap(old), wrap(new), plan)
    assert carried.state.keys() == {*new.parameters()}


def test_state_is_carried_through_run_after_run() -> None:
    model, ratio = _net(0), "prune{ratio=0.25}, compact"
    module = to_torch(model)
    optimizer: torch.optim.Optimizer = torch.optim.NAdam(module.parameters())
    for _ in range(2):
        _step(module, optimizer)
        model.update_from(module)
        result = api.run(ratio, model)
        model, smaller = result.model, to_torch(result.model)
        optimizer = carry_optimizer(optimizer, module, smaller, result.plan)
        module = smaller
    _step(module, optimizer)


def test_groups_keep_their_settings_and_the_learning_rate() -> None:
    model = _net(0)
    old, new = to_torch(model), to_torch(model)
    first, *rest = old.parameters()
    groups = [{"params": [first], "weight_decay": 0.5}, {"params": rest, "lr": 0.3}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    _step(old, optimizer)
    schedule.step()
    carried = carry_optimizer(optimizer, old, new, Plan.empty())
    for was, now in zip(optimizer.param_groups, carried.param_groups, strict=True):
        assert {k: v for k, v in was.items() if k != "params"} == {
            k: v for k, v in now.items() if k != "params"
        }
    assert carried.param_groups[0]["params"] == [next(new.parameters())]


def test_settings_are_not_shared() -> None:
    model = _net(0)
    old, new = to_torch(model), to_torch(model)
    rate = torch.tensor(0.01)
    first, *rest = old.parameters()
    optimizer = torch.optim.Adam([{"params": [first]}, {"params": rest}], lr=rate)
    carried = carry_optimizer(optimizer, old, new, Plan.empty())
    one, two = carried.param_groups
    one["lr"].mul_(0.1)
    assert float(rate) == float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.01)
    assert one["lr"] is two["lr"] is carried.defaults["lr"]


class Scaled(torch.optim.Adam):
    """A subclass with a setting of its own, which no group holds."""

    def __init__(self, params: Any, scale: float, bounds: tuple[float, ...] = (), **more: Any):
        super().__init__(params, **more)
        self.scale, self.bounds = scale, [*bounds]


def test_a_subclass_keeps_its_settings() -> None:
    model = _net(0)
    old, new = to_torch(model), to_torch(model)
    optimizer = Scaled(old.parameters(), 7.0, (1.0, 2.0), lr=0.02)
    carried = carry_optimizer(optimizer, old, new, Plan.empty())
    assert isinstance(carried, Scaled)
    assert (carried.scale, carried.bounds) == (7.0, [1.0, 2.0])
    assert carried.bounds is not optimizer.bounds
    assert carried.defaults["lr"] == carried.param_groups[0]["lr"] == 0.02


def test_a_parameter_that_is_gone_takes_its_name_along() -> None:
    old, new = nn.Linear(2, 3), nn.Linear(2, 3, bias=False)
    named = [("its bias", old.bias), ("its weight", old.weight)]
    optimizer = torch.optim.SGD(named, lr=0.1)
    (group,) = carry_optimizer(optimizer, old, new, Plan.empty()).param_groups
    assert group["param_names"] == ["its weight"]
    assert group["params"] == [new.weight]
    assert optimizer.param_groups[0]["param_names"] == ["its bias", "its weight"]


def test_what_is_frozen_stays_frozen() -> None:
    model = _net(0)
    plan = analyse(model.ir.graph).plan(random_keep(analyse(model.ir.graph), 0))
    old, new = to_torch(model), to_torch(compacted(model, plan))
    old.get_parameter("a.w").requires_grad_(False)
    new.get_parameter("w").requires_grad_(False)
    carried = carry_optimizer(torch.optim.SGD(old.parameters(), 0.1), old, new, plan)
    frozen = [name for name, p in new.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == ["a.w", "w"]
    before = new.get_parameter("a.w").detach().clone()
    _step(new, carried)
    torch.testing.assert_close(new.get_parameter("a.w"), before, rtol=0, atol=0)


def _branches() -> Model:
    """Two blocks whose branches end in a bias."""
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 2, 4, 4), 2, 4, name="stem"))
    for name in ("p", "q"):
        y = net.biased(net.relu(net.biased(x, 4, 3, name=name)), 3, 4, name=f"{name}.end")
        x = net.relu(net.op("Add", x, y, name=f"{name}.sum"))
    net.op("Flatten", net.op("GlobalAveragePool", net.biased(x, 4, 3, name="head")), name="y")
    return net.model()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_what_a_removed_branch_leaves_starts_without_state(marked: bool, named: bool) -> None:
    model = _branches()
    for value in model.ir.graph.initializers.values() if marked else ():
        value.metadata_props[PARAMETER] = TRAINED
    old = to_torch(model)
    parameters = dict(old.named_parameters())
    ends = {"p.end.b", "p.end.w"}
    items = [(name, p) if named else p for name, p in parameters.items() if name not in ends]
    rest = [(name, parameters[name]) if named else parameters[name] for name in sorted(ends)]
    groups = [{"params": items}, {"params": rest, "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9)
    _step(old, optimizer)
    model.update_from(old)
    small = model.clone()
    for weight in ("p.w", "q.w"):  # the second plan also names what the first one left
        small.pending = emptying(small, weight)
        Compact().run(small, Context())
    plan = small.plan
    new = to_torch(small)
    made = new.meta["irprune.made-of"]
    first, second = sorted(made, key=lambda name: "q" in name)
    assert made == {first: ["p.end.b"], second: ["q.end.b"]}
    carried = carry_optimizer(optimizer, old, new, plan)
    one, two = ([id(p) for p in group["params"]] for group in carried.param_groups)
    assert two == [id(new.get_parameter(first))] and carried.param_groups[1]["lr"] == 0.5
    assert one[-1] == id(new.get_parameter(second)) and len(one) == 5
    if named:
        assert carried.param_groups[1]["param_names"] == [first]
    assert carried.state.keys() == {p for n, p in new.named_parameters() if n not in made}
    before = new.get_parameter(first).detach().clone()
    _step(new, carried)
    assert not torch.equal(new.get_parameter(first), before)
    small.update_from(new)


def test_what_came_of_frozen_or_other_parameters_alone_is_left_alone() -> None:
    model = _branches()
    old = to_torch(model)
    old.get_parameter("p.end.b").requires_grad_(False)
    others = [p for name, p in old.named_parameters() if not name.startswith("q")]
    small = model.clone()
    small.pending = emptying(model, "p.w", "q.w")
    Compact().run(small, Context())
    new = to_torch(small)
    carried = carry_optimizer(torch.optim.SGD(others, 0.1), old, new, small.plan)
    frozen = [name for name, p in new.named_parameters() if not p.requires_grad]
    assert [new.meta["irprune.made-of"][name] for name in frozen] == [["p.end.b"]]
    held = {id(p) for p in carried.param_groups[0]["params"]}
    left = [name for name, p in new.named_parameters() if id(p) not in held]
    assert [new.meta["irprune.made-of"][name] for name in left] == [["q.end.b"]]


def test_weights_that_were_folded_in_between_are_refused() -> None:
    net = Net()
    w = net.op("Mul", net.weight(4, 3, name="w"), net.weight(1, 3, name="s"), name="folded")
    net.op("MatMul", net.input("N", 4), w, name="y")
    model = net.model()
    old = to_torch(model)
    new = to_torch(api.run("normalize", model, verify=False).model)
    with pytest.raises(IrpruneError, match="no parameter folded; .* normalize it before"):
        carry_optimizer(torch.optim.SGD(old.parameters(), 0.1), old, new, Plan.empty())


def test_a_plan_between_other_modules_is_refused() -> None:
    model = _net(0)
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, 1))
    old = to_torch(model)
    optimizer = torch.optim.SGD(old.parameters(), 0.1, momentum=0.9)
    with pytest.raises(IrpruneError, match="the plan does not lead from"):
        carry_optimizer(optimizer, old, to_torch(model), plan)
    with pytest.raises(IrpruneError, match="is no parameter of the module"):
        carry_optimizer(optimizer, to_torch(model), to_torch(model), Plan.empty())


def test_state_of_another_layout_is_refused() -> None:
    model = _net(0)
    old = to_torch(model)
    optimizer = torch.optim.Adafactor(old.parameters())
    _step(old, optimizer)
    with pytest.raises(IrpruneError, match="laid out unlike the parameter"):
        carry_optimizer(optimizer, old, to_torch(model), Plan.empty())
