"""A PyTorch module becomes a graph that keeps its names and computes what it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_nets import Attention, Mixed, randomised, run_graph

from irprune import IrpruneError, Model, api, from_torch
from irprune.frontends.torch import load_factory

NETS = {
    "mixed": (Mixed, torch.randn(1, 3, 8, 8)),
    "attention": (Attention, torch.tensor([[1, 2, 3], [4, 5, 6]])),
}


@pytest.fixture(scope="module", params=NETS)
def taken(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Model]:
    """A module in training mode, its input, and the model made of it."""
    make, x = NETS[request.param]
    module = randomised(make()).train()
    return module, x, from_torch(module, (x,))


def test_every_state_name_is_an_initializer(taken: tuple[nn.Module, Tensor, Model]) -> None:
    module, _, model = taken
    found = model.ir.graph.initializers
    for name, tensor in module.state_dict().items():
        assert tuple(found[name].shape or ()) == tuple(tensor.shape)
        weight = found[name].const_value
        assert weight is not None
        np.testing.assert_array_equal(weight.numpy(), tensor.numpy())


def test_it_computes_what_the_module_does_in_eval_mode(
    taken: tuple[nn.Module, Tensor, Model],
) -> None:
    module, x, model = taken
    assert module.training and all(part.training for part in module.modules())
    double = torch.cat([x, x, x])
    with torch.no_grad(), without_dropout():
        expected = module.eval()(double)
    module.train()
    found = run_graph(model, double)
    assert np.abs(found - expected.numpy()).max() <= 1e-5 * float(expected.abs().max())


class without_dropout:
    """While it lasts, functional dropout does nothing."""

    def __enter__(self) -> None:
        self.kept = nn.functional.dropout
        nn.functional.dropout = lambda x, *_, **__: x

    def __exit__(self, *_: object) -> None:
        nn.functional.dropout = self.kept


def test_the_batch_is_dynamic_and_batch_norm_stays() -> None:
    model = from_torch(Mixed(), (torch.randn(1, 3, 8, 8),))
    assert str(model.ir.graph.inputs[0].shape) == "[batch,3,8,8]"
    assert str(model.ir.graph.outputs[0].shape) == "[batch,5]"
    kinds = [node.op_type for node in model.ir.graph]
    assert kinds.count("BatchNormalization") == 3
    assert "Dropout" not in kinds


def test_nodes_know_their_module_and_line(taken: tuple[nn.Module, Tensor, Model]) -> None:
    _, _, model = taken
    places = {n.metadata_props.get("irprune.module") for n in model.ir.graph}
    assert places & {"stem", "layer.self_attn"}
    assert all("irprune.module" in node.metadata_props for node in model.ir.graph)
    file = Path(__file__).with_name("torch_nets.py")
    sources = {n.metadata_props.get("irprune.source", "") for n in model.ir.graph}
    lines = {int(s.rpartition(":")[2]) for s in sources if s.startswith(f"{file}:")}
    text = file.read_text().splitlines()
    calls = ("self.norm(self.stem(x))", "self.layer(x)")
    assert any(call in text[n - 1] for call in calls for n in lines)
    assert not any(key.startswith("pkg.") for n in model.ir.graph for key in n.metadata_props)


def test_sizes_can_be_fixed() -> None:
    model = from_torch(nn.Linear(3, 2), (torch.zeros(4, 3),), dynamic_shapes={})
    assert str(model.ir.graph.inputs[0].shape) == "[4,3]"


def test_inputs_by_name_share_the_batch() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    model = from_torch(Two(), (torch.zeros(3, 2),), {"b": torch.zeros(3, 1)})
    assert [str(v.shape) for v in model.ir.graph.inputs] == ["[batch,2]", "[batch,1]"]


def test_weights_do_not_follow_training() -> None:
    module = nn.Linear(3, 2)
    model = from_torch(module, (torch.zeros(4, 3),))
    kept = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    weight = model.ir.graph.initializers["weight"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), kept.numpy())


def test_what_torch_cannot_capture_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(IrpruneError, match=r"torch.export cannot capture Branching"):
        from_torch(Branching(), (torch.zeros(2, 3),))


def test_a_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irprune.frontends.torch.find_spec", lambda name: None)
    with pytest.raises(IrpruneError, match=r"need torch and onnxscript.*irprune\[torch\]"):
        from_torch(nn.Linear(3, 2), (torch.zeros(4, 3),))


FACTORY = """
from torch import nn, zeros
from neighbour import width

def net():
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))

def sized():
    return net(), (zeros(1, 6),)

def number():
    return 3

def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("width = 10\n")
    path = tmp_path / "nets.py"
    path.write_text(FACTORY)
    return path


def test_a_factory_gives_a_model(factory: Path) -> None:
    model = load_factory(f"{factory}:sized", {})
    assert model.provenance.name == "sized"
    result = api.run("normalize, prune{ratio=0.5}, compact", model)
    assert str(result.model.ir.graph.initializers["0.weight"].shape) == "[5,6]"
    assert str(load_factory(f"{factory}:net", {"input": (2, 6)}).ir.graph.inputs[0].shape) == (
        "[batch,6]"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"nets.py: has no function 'nothing'; it has .*net, sized"),
        ("number", r"nets.py: number\(\) returns int; return a torch.nn.Module"),
        ("broken", r"nets.py: broken\(\) raises RuntimeError: no weights here"),
        ("net", r"nets.py: net\(\) returns a module without example inputs; .*--shape input="),
    ],
)
def test_a_factory_that_does_not_fit_is_refused(factory: Path, name: str, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        load_factory(f"{factory}:{name}", {})


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="no such file"):
        load_factory(tmp_path / "none.py:net", {})
    (tmp_path / "bad.py").write_text("def (:\n")
    with pytest.raises(IrpruneError, match=r"bad.py: executing it raises SyntaxError"):
        load_factory(tmp_path / "bad.py:net", {})
