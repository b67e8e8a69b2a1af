"""Optimizer state after pruning: every tensor sliced as its parameter was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import Net, compacted, kept_part, random_keep, seeds
from torch import nn
from torch_devices import DEVICES

from irprune import IrpruneError, Plan, api
from irprune.backends.torch import carry_optimizer, to_torch
from irprune.channels import analyse
from irprune.model import Model

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


def test_a_parameter_that_is_gone_takes_its_name_along() -> None:
    old, new = nn.Linear(2, 3), nn.Linear(2, 3, bias=False)
    named = [("its bias", old.bias), ("its weight", old.weight)]
    optimizer = torch.optim.SGD(named, lr=0.1)
    (group,) = carry_optimizer(optimizer, old, new, Plan.empty()).param_groups
    assert group["param_names"] == ["its weight"]
    assert group["params"] == [new.weight]
    assert optimizer.param_groups[0]["param_names"] == ["its bias", "its weight"]


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
