"""`irprune inspect` and `irprune explain`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Cli = Callable[..., Result]


def test_inspect_as_text(cli: Cli, net: Path) -> None:
    done = cli("inspect", net)
    assert done.exit_code == 0, done.stderr
    for line in ("model        net (opset ai.onnx 17; IR 8)", "after        normalize"):
        assert line in done.stdout
    for word in ("parameters", "MACs", "weights", "activations", "coupled groups: 2"):
        assert word in done.stdout
    assert "conv1.weight" in done.stdout
    assert "is part of a graph input" in done.stdout


def test_inspect_as_json(cli: Cli, net: Path) -> None:
    facts = json.loads(cli("inspect", net, "--json").stdout)
    conv1, conv2, fc = 32 * 3 * 9 * 64, 48 * 32 * 9 * 36, 5 * 48
    assert facts["costs"]["macs"] == conv1 + conv2 + fc
    assert facts["inputs"] == [{"name": "x", "dtype": "FLOAT", "shape": [1, 3, 8, 8]}]
    assert facts["free"] == {"contraction_channels": 80, "of": 80}
    assert [(group["name"], group["classes"]) for group in facts["groups"]] == [
        ("conv1.weight", 32),
        ("conv2.weight", 48),
    ]
    pinned = {(row["tensor"], row["axis"]): row for row in facts["pinned"]}
    assert pinned["fc.weight", 0]["reason"] == "is part of a graph output at output y"
    assert pinned["x", 1]["pinned"] == 3


def test_inspect_takes_shapes(cli: Cli, dynamic_net: Path) -> None:
    one, four = (
        json.loads(cli("inspect", dynamic_net, "--json", *extra).stdout)["costs"]
        for extra in ([], ["--shape", "x=4x3x8x8"])
    )
    assert four["macs"] == 4 * one["macs"]
    assert four["params"] == one["params"]


def test_inspect_the_file_as_it_is(cli: Cli, net: Path) -> None:
    done = cli("inspect", net, "--after", "")
    assert done.exit_code == 0, done.stderr
    assert "after" not in done.stdout


def test_explain_a_free_channel(cli: Cli, net: Path) -> None:
    done = cli("explain", net, "conv1.weight", "--axis", 0, "--index", 3)
    assert done.exit_code == 0, done.stderr
    assert "axis 0, position 3\n  goes together with\n" in done.stdout
    assert "bn1.weight[0]    3" in done.stdout
    assert "conv2.weight[1]  3" in done.stdout
    assert "bn1 (BatchNormalization)" in done.stdout


def test_explain_a_pinned_axis(cli: Cli, net: Path) -> None:
    done = cli("explain", net, "y", "--axis", -1)
    assert done.exit_code == 0, done.stderr
    assert "axis 1: pinned: is part of a graph output at output y" in done.stdout


def test_explain_every_axis(cli: Cli, net: Path) -> None:
    facts = json.loads(cli("explain", net, "conv2.weight", "--json").stdout)
    assert facts["shape"] == [48, 32, 3, 3]
    assert [axis["pinned"] for axis in facts["axes"]] == [0, 0, 3, 3]
    coupled = {(row["tensor"], row["axis"]) for row in facts["axes"][0]["coupled"]}
    assert ("fc.weight", 1) in coupled
    assert ("conv2.bias", 0) in coupled


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["conv2.weihgt"], "no tensor conv2.weihgt; did you mean conv2.weight"),
        (["conv2.weight", "--axis", 4], "has 4 axes, so no axis 4"),
        (["conv2.weight", "--axis", -5], "has 4 axes, so no axis -5"),
        (["conv2.weight", "--axis", 0, "--index", 48], "positions run from 0 to 47"),
        (["conv2.weight", "--index", 0], "add --axis K"),
    ],
)
def test_explain_what_does_not_exist(cli: Cli, net: Path, args: list[object], message: str) -> None:
    done = cli("explain", net, *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
