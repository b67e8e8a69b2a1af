"""The shipped configuration of ResNet-50 on ImageNet, shortened: bottlenecks on a few pictures."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from iterate_runs import run
from PIL import Image

import irprune
from irprune.explore.iterate import read_config

EXAMPLES = Path(__file__).parents[3] / "examples" / "iterate"


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    """What the module that the configuration names holds."""
    return runpy.run_path(str(EXAMPLES / "networks.py"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures to learn from, and four to test on, of two classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(96 * label, 96 * label + 160, (80, 72, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "pictures"


def test_the_configuration_runs(tmp_path: Path, pictures: Path, networks: dict[str, Any]) -> None:
    """All that it asks for, with less of it: bf16, channels last, the rate rewound, a proof."""
    told = read_config(EXAMPLES / "resnet50-imagenet-iap.toml")
    optimizer = replace(told.train.optimizer, lr=told.train.optimizer.lr * 6 / told.train.batch)
    schedule = replace(told.train.schedule, at=(1.0,), warmup=0.5)
    config = replace(
        told,
        data=replace(told.data, size=64, workers=0),
        train=replace(told.train, epochs=2, batch=6, optimizer=optimizer, schedule=schedule),
        rewind=replace(told.rewind, epoch=1),
        prune=replace(told.prune, samples=12, conv=told.prune.conv[-1:]),
        machine=replace(told.machine, accelerator="cpu"),
        objective=replace(told.objective, rounds=1),
    )
    network = networks["resnet"]((1, 2), 16, 2).eval()
    model = irprune.from_torch(network, (torch.zeros(2, 3, 64, 64),))
    first, last = run(tmp_path / "run", model, pictures, config)
    kept = {name: width - round(0.2 * width) for name, width in first["widths"].items()}
    assert last["widths"] == kept | {"fc.weight": 2}
    assert last["macs"] < first["macs"] and last["stability"] > 0
    assert last["latency_s"] is not None
    small = irprune.load(tmp_path / "run" / "round-001" / "model.onnx")
    assert small.ir.graph.initializers["layer2.1.conv3.weight"].shape == [102, 26, 1, 1]


def test_the_network_has_the_parameters_of_the_paper(networks: dict[str, Any]) -> None:
    """0.02560 billion."""
    with torch.device("meta"):
        network, (example,) = networks["resnet_50"]()
        assert network(example).shape == (2, 1000)
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    assert "layer4.2.bn3.weight" in network.state_dict()
