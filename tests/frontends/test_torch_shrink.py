"""The user's own module, shrunk in place, computes what the compacted graph computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_nets import Attention, Handmade, Mixed, randomised, run_graph

from irprune import (
    IrpruneError,
    Plan,
    api,
    apply_to_module,
    export_state_dict,
    from_torch,
    to_torch,
)

IMAGE, TOKENS = torch.randn(2, 3, 8, 8), torch.tensor([[1, 2, 3], [4, 5, 6]])
PRUNE = "normalize, prune{ratio=0.4 scope=local %s}, compact"


@pytest.fixture(autouse=True)
def _no_functional_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.functional, "dropout", lambda x, *_, **__: x)


def distance(actual: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(actual.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("make", "x", "options", "checked"),
    [
        (Mixed, IMAGE, "", False),
        (Mixed, IMAGE, "tie", True),
        (Mixed, IMAGE, "allow=inexact", False),
        (Attention, TOKENS, "", False),
        (Attention, TOKENS, "heads=whole", True),
        (Attention, TOKENS, "allow=inexact", False),
    ],
)
def test_a_shrunk_module_equals_the_compacted_graph(
    make: Callable[[], nn.Module], x: Tensor, options: str, checked: bool
) -> None:
    module = randomised(make())
    result = api.run(PRUNE % options, from_torch(module, (x,)))
    expected = run_graph(result.model, x)
    small = apply_to_module(copy.deepcopy(module), result.plan, (x,) if checked else None)
    assert type(small) is make and small.training
    sizes = [sum(p.numel() for p in m.parameters()) for m in (small, module)]
    assert sizes[0] < 0.9 * sizes[1]
    state = export_state_dict(result)
    assert [*state] == [*module.state_dict()]
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
    with torch.no_grad():
        assert distance(small.eval()(x), expected) < 1e-5
    small.train()(x).sum().backward()


def test_ties_stay_and_attributes_follow() -> None:
    module = randomised(Mixed())
    result = api.run(PRUNE % "", from_torch(module, (IMAGE,)), verify=False)
    apply_to_module(module, result.plan)
    assert module.twin.weight is module.fc.weight
    assert module.depthwise.groups == module.depthwise.in_channels == len(module.depthwise.weight)
    assert module.grouped.groups == 4
    assert module.norm.num_features == module.stem.out_channels == len(module.norm.running_mean)
    assert module.norm.num_batches_tracked == 0
    assert module.unused.in_features == 7


class Block(nn.Module):
    """Positions from a layer that other blocks own as well, as CoaT's encoders do."""

    def __init__(self, position: nn.Module) -> None:
        super().__init__()
        self.position = position
        self.mix = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(x + self.position(x)))


def test_a_layer_of_two_owners_shrinks_once() -> None:
    position = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    layers = [nn.Conv2d(3, 8, 1), Block(position), Block(position), nn.Conv2d(8, 2, 1)]
    module = randomised(nn.Sequential(*layers))
    result = api.run(PRUNE % "", from_torch(module, (IMAGE,)))
    small = apply_to_module(copy.deepcopy(module), result.plan, None)
    first, second = small[1].position, small[2].position
    assert first is second and first.groups == first.in_channels == len(first.weight) < 8
    with torch.no_grad():
        assert distance(small.eval()(IMAGE), run_graph(result.model, IMAGE)) < 1e-5


def test_a_state_dict_holds_what_training_changed_since() -> None:
    module = randomised(Mixed())
    result = api.run(PRUNE % "", from_torch(module, (IMAGE,)), verify=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    apply_to_module(module, result.plan)
    kept = export_state_dict(result)
    torch.testing.assert_close(module.state_dict()["fc.bias"], 2 * kept["fc.bias"])


def test_attention_written_by_hand_is_refused() -> None:
    module, x = nn.Sequential(Handmade()), torch.randn(2, 5, 16)
    result = api.run(PRUNE % "", from_torch(module, (x,)), verify=False)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(IrpruneError, match=r"0 \(Handmade\): .* attribute num_heads"):
        apply_to_module(module, result.plan)
    with pytest.raises(IrpruneError, match=r"0 \(Handmade\): its forward does not fit"):
        apply_to_module(module, result.plan, (x,))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_a_forward_that_computes_something_else_is_noticed() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            return self.two(y * (2.0 if y.shape[1] == 16 else 3.0))

    module, x = Reversed(), torch.randn(2, 8)
    result = api.run(PRUNE % "", from_torch(module, (x,)), verify=False)
    with pytest.raises(IrpruneError, match="computes something else than the masked one"):
        apply_to_module(module, result.plan, (x,))
    assert module.one.out_features == 16


def test_a_layer_of_ones_own_needs_example_inputs() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.rand(16))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    module, x = nn.Sequential(nn.Linear(8, 16), Scale(), nn.Linear(16, 4)), torch.randn(2, 8)
    result = api.run(PRUNE % "", from_torch(module, (x,)))
    with pytest.raises(IrpruneError, match=r"1 \(Scale\): its factor shrink.*example args"):
        apply_to_module(module, result.plan)
    apply_to_module(module, result.plan, (x,))
    with torch.no_grad():
        assert distance(module(x), run_graph(result.model, x)) < 1e-5


def test_a_plan_for_another_module_is_refused() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    mask = np.arange(16) < 8
    with pytest.raises(IrpruneError, match="names no parameter of the module"):
        apply_to_module(module, Plan({"other.weight": {0: mask}}))
    with pytest.raises(IrpruneError, match=r"axis 1 of 0.weight does not fit its shape \[16, 8\]"):
        apply_to_module(module, Plan({"0.weight": {1: mask}}))
    with pytest.raises(IrpruneError, match=r"0.weight keeps no channel"):
        apply_to_module(module, Plan({"0.weight": {0: mask & False}}))


def test_a_state_dict_needs_a_module_and_its_parameters() -> None:
    module = randomised(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)))
    model = from_torch(module, (IMAGE,))
    folded = api.run("normalize, fold-batchnorm", model, verify=False)
    with pytest.raises(IrpruneError, match="no longer in the graph: a pass folded it"):
        export_state_dict(folded)
    model.state = {}
    plain = api.run("normalize", model, verify=False)
    with pytest.raises(IrpruneError, match="not from a PyTorch module; use from_torch"):
        export_state_dict(plain)


def test_values_that_moved_to_a_new_bias_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    with torch.no_grad():
        module[0].weight[:3] = 0
        module[0].bias[:3] = 1
    result = api.run("normalize, dead-channels, compact", from_torch(module, (IMAGE,)))
    with pytest.raises(IrpruneError, match="for which the module has no parameter"):
        export_state_dict(result)


class Residual(nn.Module):
    """A branch that ends in a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.inner, self.end = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(x + self.end(torch.relu(self.inner(x)))))


def test_the_constant_of_a_removed_branch_is_refused(tmp_path: Path) -> None:
    """It trains, and the module has nothing that could hold what it learnt."""
    overrides = tmp_path / "none.toml"
    overrides.write_text('[groups."inner.weight"]\nkeep = 0\n')
    text = f'normalize, prune{{ratio=0 scope=local min=0 overrides="{overrides}"}}, compact'
    result = api.run(text, from_torch(Residual(), (IMAGE,)))
    net = to_torch(result.model)
    (left,) = (name for name, p in net.named_parameters() if p.dim() == 4 and len(p) == 1)
    with torch.no_grad():
        net.get_parameter(left).add_(1)
    result.model.update_from(net)
    with pytest.raises(IrpruneError, match=f"gave it values .{left}. for which the module"):
        export_state_dict(result)
