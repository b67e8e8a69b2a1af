"""`irprune run`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import Result

from irprune.plan import Plan

Cli = Callable[..., Result]

PIPELINE = "normalize, prune{macs=0.5}, compact"


def shape(path: Path, name: str) -> list[int]:
    initializers = onnx.load(path).graph.initializer
    return next(list(tensor.dims) for tensor in initializers if tensor.name == name)


def output(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path)
    feed = np.ones((1, 3, 8, 8), np.float32)
    return np.asarray(session.run(None, {"x": feed})[0])


def test_prunes_proves_and_writes(cli: Cli, net: Path, tmp_path: Path) -> None:
    done = cli(
        "run", PIPELINE, net, "-o", "small.onnx", "--plan", "p.json", "--base", "b.onnx",
        "--report", "r.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "proved: base equals original" in done.stdout
    assert "proved: compacted equals masked base" in done.stdout
    assert "MACs" in done.stdout
    assert "[1/3] normalize" in done.stderr
    assert output(tmp_path / "small.onnx").shape == (1, 5)
    assert shape(tmp_path / "small.onnx", "conv2.weight") < [48, 32, 3, 3]
    assert shape(tmp_path / "b.onnx", "conv2.weight") == [48, 32, 3, 3]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["after"]["macs"] == pytest.approx(report["before"]["macs"] / 2, rel=0.1)
    assert [proof["verdict"] for proof in report["proof"]] == ["proved", "proved"]
    plan = Plan.load(tmp_path / "p.json")
    assert plan.pipeline == report["pipeline"] == PIPELINE
    assert plan.base_pipeline == "normalize"
    metadata = {prop.key: prop.value for prop in onnx.load("small.onnx").metadata_props}
    assert metadata["irprune.pipeline.language"] == PIPELINE


def test_the_default_preset(cli: Cli, net: Path) -> None:
    done = cli("run", "default", net, "-o", "small.onnx")
    assert done.exit_code == 0, done.stderr
    assert "pipeline  normalize, prune{macs=0.5 align=auto}, compact" in done.stdout


def test_the_same_run_writes_the_same_bytes(cli: Cli, net: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = cli("run", PIPELINE, net, "-o", f"{name}.onnx", "--plan", f"{name}.json")
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_goes_to_stdout_and_logs_to_stderr(cli: Cli, net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "small.onnx", "--json", "--time-passes")
    report = json.loads(done.stdout)
    assert [row["pass"] for row in report["passes"]] == PIPELINE.split(", ")
    assert "[2/3] prune{macs=0.5}: 0." in done.stderr


def test_no_verify(cli: Cli, net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "small.onnx", "--no-verify")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith("not proved\n")


def test_verify_in_the_pipeline_is_not_repeated_at_the_end(cli: Cli, net: Path) -> None:
    done = cli("run", f"{PIPELINE}, verify", net, "-o", "small.onnx")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("proof: compacted") == 1


def test_verify_each(cli: Cli, net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "small.onnx", "--verify-each")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("proof: base equals original") == 2


def test_print_after(cli: Cli, net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "s.onnx", "--print-after", "normalize", "--no-verify")
    assert "Conv(" in done.stderr
    assert "Conv(" not in done.stdout


def test_a_pipeline_file(cli: Cli, net: Path, tmp_path: Path) -> None:
    (tmp_path / "half.pipe").write_text(f"# half the work\n{PIPELINE}\n")
    done = cli("run", "@half.pipe", net, "-o", "small.onnx", "--no-verify")
    assert done.exit_code == 0, done.stderr


def test_shapes_and_inputs(cli: Cli, dynamic_net: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", x=np.ones((4, 3, 8, 8), np.float32))
    for extra in (["--shape", "x=2x3x8x8"], ["--inputs", "feeds.npz"]):
        done = cli("run", PIPELINE, dynamic_net, "-o", "small.onnx", *extra)
        assert done.exit_code == 0, done.stderr


def test_only_the_plan(cli: Cli, net: Path, tmp_path: Path) -> None:
    done = cli("run", "normalize, prune{macs=0.5}", net, "--plan", "p.json", "--json")
    assert done.exit_code == 0, done.stderr
    assert "conv2.weight" in Plan.load(tmp_path / "p.json").axes
    report = json.loads(done.stdout)
    assert report["after"]["macs"] < report["before"]["macs"]


def test_a_failed_proof_writes_the_report_alone(
    cli: Cli, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irprune.passes.compact import Compact

    honest = Compact.run

    def wrong(self, model, context):  # type: ignore[no-untyped-def]
        import onnx_ir as ir

        changed = honest(self, model, context)
        weight = model.ir.graph.initializers["conv2.weight"]
        weight.const_value = ir.tensor(weight.const_value.numpy()[::-1].copy(), name=weight.name)
        return changed

    monkeypatch.setattr(Compact, "run", wrong)
    done = cli("run", PIPELINE, net, "-o", "s.onnx", "--plan", "p.json", "--report", "r.json")
    assert done.exit_code == 1
    assert "compacted equals masked base: proof failed" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "r.json"]
    assert json.loads((tmp_path / "r.json").read_text())["proof"][1]["verdict"] == "failed"


def test_a_crashing_pass_names_the_reproducer(
    cli: Cli, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irprune.passes.compact import Compact

    def crash(self, model, context):  # type: ignore[no-untyped-def]
        raise KeyError("lost")

    monkeypatch.setattr(Compact, "run", crash)
    done = cli("run", PIPELINE, net, "-o", "out/small.onnx")
    assert done.exit_code == 2
    (tmp_path / "out").mkdir()
    done = cli("run", PIPELINE, net, "-o", "out/small.onnx")
    folder = Path("out/irprune-repro-compact")
    assert done.exit_code == 1
    assert f"pass `compact` failed: KeyError: 'lost'; reproducer: {folder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "prune{macs=0.5}, compact" in (folder / "pipeline.pipe").read_text()
    assert not (tmp_path / "out" / "small.onnx").exists()
    done = cli("run", PIPELINE, net, "-o", "out/small.onnx", "--debug")
    assert "Traceback" in done.stderr


def test_as_a_process(net: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "irprune", "run", PIPELINE, str(net), "-o", "small.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.onnx").exists()


FACTORY = """
from torch import nn, zeros

def net():
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2)), (zeros(1, 6),)
"""


def test_a_factory_stands_for_a_model(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    pipeline = "normalize, prune{ratio=0.5}, compact"
    done = cli("run", pipeline, "nets.py:net", "-o", "small.onnx")
    assert done.exit_code == 0, done.stderr
    assert shape(tmp_path / "small.onnx", "0.weight") == [5, 6]
    wrong = cli("run", pipeline, "nets.py:nett", "-o", "small.onnx")
    assert wrong.exit_code == 2
    assert "nets.py: has no function 'nett'; it has zeros, net" in wrong.stderr
