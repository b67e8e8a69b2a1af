"""`prune{allow=...}`: embeddings are pruned through norms, the report tells, the proof holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from norm_nets import NormNet
from strategies import value_of

import irprune
from irprune.cli import main
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.prune import Prune

WIDTH, HEADS, TOKENS = 16, 2, 5


class Transformer(NormNet):
    """Pre-norm blocks on an embedding table, and a classifier of the mean token."""

    def __init__(self, written_out: bool) -> None:
        super().__init__(17, 3)
        self._written_out = written_out

    def build(self, blocks: int = 2) -> Model:
        ids = self.input("N", TOKENS, name="ids", dtype=7)
        x = self.op("Gather", self.weight(11, WIDTH, name="table"), ids)
        x = self.op("Add", x, self.weight(TOKENS, WIDTH, name="positions"))
        for k in range(blocks):
            x = self.op("Add", x, self._attention(self._norm(x, f"n{k}"), f"attention{k}"))
            y = self._norm(x, f"m{k}")
            y = self.op("Relu", self._dense(y, WIDTH, 24, f"up{k}"))
            x = self.op("Add", x, self._dense(y, 24, WIDTH, f"down{k}"))
        x = self.axes_op("ReduceMean", self._norm(x, "last"), [1], 18, keepdims=0)
        self.linear(x, WIDTH, 3, "y")
        return self.model()

    def _dense(self, x: str, inner: int, outer: int, name: str) -> str:
        return self.op("Add", self.linear(x, inner, outer, name), self.weight(outer))

    def _attention(self, x: str, name: str) -> str:
        query, key, value = (
            self.op(
                "Transpose",
                self.op(
                    "Reshape",
                    self._dense(x, WIDTH, WIDTH, f"{name}.{part}"),
                    self.ints(-1, TOKENS, HEADS, WIDTH // HEADS),
                ),
                perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3],
            )
            for part in ("query", "key", "value")
        )
        scores = self.op("Softmax", self.op("Mul", self.op("MatMul", query, key), self.scalar(0.3)))
        mixed = self.op("Transpose", self.op("MatMul", scores, value), perm=[0, 2, 1, 3])
        flat = self.op("Reshape", mixed, self.ints(-1, TOKENS, WIDTH))
        return self._dense(flat, WIDTH, WIDTH, f"{name}.out")

    def _norm(self, x: str, name: str) -> str:
        scale, bias = (self.weight(WIDTH, name=f"{name}.{k}", low=0.5) for k in ("scale", "bias"))
        if not self._written_out:
            return self.op("LayerNormalization", x, scale, bias)
        centred = self.op("Sub", x, self.reduce("ReduceMean", x, -1))
        square = self.op("Pow", centred, self.scalar(2))
        variance = self.op("Add", self.reduce("ReduceMean", square, -1), self.scalar(1e-5))
        normal = self.op("Div", centred, self.op("Sqrt", variance))
        return self.op("Add", self.op("Mul", normal, scale), bias)


def convnext() -> Model:
    """Blocks of a depthwise convolution, LayerNormalization of channels last, and two layers."""
    net = NormNet(17, 4)
    x = net.conv(net.input("N", 3, 8, 8), 3, WIDTH, 2, 2, name="stem", strides=[2, 2])
    for k in range(2):
        y = net.conv(x, WIDTH, WIDTH, 3, 3, name=f"dw{k}", group=WIDTH, pads=[1] * 4)
        y = net.op("Transpose", y, perm=[0, 2, 3, 1])
        scale, bias = net.weight(WIDTH, low=0.5), net.weight(WIDTH)
        y = net.op("LayerNormalization", y, scale, bias)
        y = net.linear(net.op("Relu", net.linear(y, WIDTH, 24, f"up{k}")), 24, WIDTH, f"down{k}")
        y = net.op("Mul", y, net.weight(WIDTH, name=f"gamma{k}"))
        x = net.op("Add", x, net.op("Transpose", y, perm=[0, 3, 1, 2]))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.op("LayerNormalization", x, net.weight(WIDTH, low=0.5), net.weight(WIDTH))
    net.linear(x, WIDTH, 3, "y")
    return net.model()


NETS: dict[str, tuple[Callable[[], Model], str, tuple[str, int], int]] = {
    "fused": (lambda: Transformer(False).build(), "down0.w", ("n0.scale", 0), 5),
    "written-out": (lambda: Transformer(True).build(), "down0.w", ("n0.scale", 0), 5),
    "convnext": (convnext, "stem.w", ("dw0.w", 0), 3),
}


@pytest.mark.parametrize("name", NETS)
def test_an_embedding_is_pruned_through_its_norms(name: str) -> None:
    build, producer, (tensor, axis), norms = NETS[name]
    text = f"normalize, prune{{ratio=0.25 scope=local only={producer} %s}}, compact, verify"
    model = build()
    with pytest.raises(IrpruneError, match="no channel can be pruned"):
        irprune.run(text % "", model)
    result = irprune.run(text % "allow=LayerNormalization", model)
    assert value_of(result.model, tensor).shape[axis] == WIDTH * 3 // 4
    told = {"LayerNormalization": norms}
    assert result.report["inexact"] == told
    (prune,) = [r["changed"] for r in result.report["passes"] if r["pass"].startswith("prune")]
    assert prune["inexact"] == told
    base, compacted = result.report["proof"]
    assert (base["verdict"], compacted["verdict"]) == ("proved", "proved")
    assert (base["inexact"], compacted["inexact"]) == ({}, told)


def test_the_default_policy_prunes_what_is_exact() -> None:
    result = irprune.run("normalize, prune{ratio=0.3}, compact", Transformer(False).build())
    assert result.report["inexact"] == {}
    assert value_of(result.model, "table").shape[1] == WIDTH
    assert value_of(result.model, "up0.w").shape[1] < 24


def test_a_plan_goes_to_another_checkpoint() -> None:
    text = "normalize, prune{ratio=0.25 scope=local allow=inexact}, compact"
    result = irprune.run(text, Transformer(False).build())
    other = irprune.apply(result.plan, Transformer(False).build())
    assert other.report["inexact"] == result.report["inexact"] != {}


def test_an_unknown_op_is_refused_at_its_place() -> None:
    with pytest.raises(IrpruneError, match=r"allow=LayerNorm: .*LayerNormalization(.|\n)*\^"):
        irprune.run("prune{ratio=0.5 allow=LayerNorm}", convnext())


def test_a_stricter_policy_does_not_take_over_a_pending_plan() -> None:
    model = convnext()
    Prune(ratio=0.3, scope="local", allow=("inexact",)).run(model, Context())
    with pytest.raises(IrpruneError, match="coupled or pinned otherwise here"):
        Prune(ratio=0.3).run(model, Context())


def test_the_commands_take_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    convnext().save(path)

    def cli(*arguments: str) -> Any:
        done = CliRunner().invoke(main, [arguments[0], str(path), *arguments[1:]])
        assert done.exit_code == 0, done.output
        return done.stdout

    exact, free = (
        json.loads(cli("inspect", "--json", *a))["free"] for a in ((), ("--allow", "inexact"))
    )
    assert exact["contraction_channels"] < free["contraction_channels"]
    assert "is normalised by LayerNormalization" in cli("explain", "stem.w", "--axis", "0")
    assert "16 classes, 0 pinned" in cli(
        "explain", "stem.w", "--axis", "0", "--allow", "LayerNormalization,Softmax"
    )
    refused = CliRunner().invoke(main, ["inspect", str(path), "--allow", "Relu"])
    assert refused.exit_code == 2
