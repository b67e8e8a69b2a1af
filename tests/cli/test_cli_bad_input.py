"""Bad input: one clear message, exit 2, no output file, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from refusal import Cli, refused, refused_at

PIPELINE = "normalize, prune{macs=0.5}, compact"


def edited(net: Path, edit: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(net)
    edit(model)
    onnx.save(model, net)
    return net


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def test_a_missing_file(cli: Cli) -> None:
    message = refused(cli, "run", PIPELINE, "missing.onnx", "-o", "out.onnx")
    assert message.startswith("error: missing.onnx: cannot read the model: No such file")


def test_not_a_protobuf(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is not a model\n" * 10)
    for command in (["run", PIPELINE, "text.onnx", "-o", "out.onnx"], ["inspect", "text.onnx"]):
        assert "text.onnx: not an ONNX protobuf" in refused(cli, *command)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(cli: Cli, net: Path, share: float) -> None:
    data = net.read_bytes()
    net.write_bytes(data[: int(len(data) * share)])
    assert "net.onnx: " in refused(cli, "run", PIPELINE, net, "-o", "out.onnx")


def test_an_empty_file(cli: Cli, net: Path) -> None:
    net.write_bytes(b"")
    assert "the graph is empty" in refused(cli, "run", PIPELINE, net, "-o", "out.onnx")


def test_an_empty_graph(cli: Cli, net: Path) -> None:
    edited(net, lambda model: model.graph.ClearField("node"))
    assert "the graph is empty" in refused(cli, "run", PIPELINE, net, "-o", "out.onnx")


def test_a_cyclic_graph(cli: Cli, net: Path) -> None:
    def tie(model: onnx.ModelProto) -> None:
        model.graph.node[3].input[0] = "r2"

    assert "cycle" in refused(cli, "run", PIPELINE, edited(net, tie), "-o", "out.onnx")


def test_missing_external_data(cli: Cli, net: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(net), net, save_as_external_data=True, location="net.data", size_threshold=0
    )
    (tmp_path / "net.data").unlink()
    message = refused(cli, "run", PIPELINE, net, "-o", "out.onnx")
    assert "net.data" in message
    assert "missing" in message


@pytest.mark.parametrize("location", ["../secret.data", "/etc/passwd", "link.data"])
def test_external_data_outside_the_folder(
    cli: Cli, net: Path, tmp_path: Path, location: str
) -> None:
    (tmp_path / "link.data").symlink_to("/etc/passwd")
    model = onnx.load(net)
    tensor = initializer(model, "conv1.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "3456")):
        tensor.external_data.add(key=key, value=value)
    net.write_bytes(model.SerializeToString())
    message = refused(cli, "run", PIPELINE, net, "-o", "out.onnx")
    assert "points outside the model's folder" in message


def test_a_wrong_dtype(cli: Cli, net: Path) -> None:
    def integers(model: onnx.ModelProto) -> None:
        array = np.zeros((48, 32, 3, 3), np.int64)
        initializer(model, "conv2.weight").CopyFrom(numpy_helper.from_array(array, "conv2.weight"))

    message = refused(cli, "run", PIPELINE, edited(net, integers), "-o", "out.onnx")
    assert "conv2" in message


def test_an_unknown_dtype(cli: Cli, net: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        initializer(model, "conv2.weight").data_type = 99

    message = refused(cli, "run", PIPELINE, edited(net, unknown), "-o", "out.onnx")
    assert "conv2.weight" in message


def test_nan_weights(cli: Cli, net: Path) -> None:
    def poison(model: onnx.ModelProto) -> None:
        tensor = initializer(model, "conv2.weight")
        array = numpy_helper.to_array(tensor).copy()
        array[3, 0, 0, 0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(array, "conv2.weight"))

    message = refused(cli, "run", PIPELINE, edited(net, poison), "-o", "out.onnx")
    assert "conv2.weight" in message
    assert "NaN" in message


def test_contradicting_shapes(cli: Cli, net: Path) -> None:
    def shrink(model: onnx.ModelProto) -> None:
        array = np.ones((48, 31, 3, 3), np.float32)
        initializer(model, "conv2.weight").CopyFrom(numpy_helper.from_array(array, "conv2.weight"))

    message = refused(cli, "run", PIPELINE, edited(net, shrink), "-o", "out.onnx")
    assert "conv2" in message


def test_an_unknown_operator_set(cli: Cli, net: Path) -> None:
    def custom(model: onnx.ModelProto) -> None:
        model.graph.node[2].domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))

    message = refused(cli, "run", "normalize", edited(net, custom), "-o", "out.onnx")
    assert "com.example" in message


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("prun{macs=0.5}", "unknown pass `prun`; did you mean `prune`?"),
        ("prune{mac=0.5}", "pass `prune` has no option `mac`; did you mean `macs`?"),
        ("prune{macs=half}", "macs"),
        ("prune{macs=0.5", "expected an option name or `}`"),
        ("prune{macs=1.5}", "macs=1.5"),
        ("", "expected a pass name"),
        ("@missing.pipe", "cannot read pipeline file missing.pipe"),
    ],
)
def test_a_bad_pipeline(cli: Cli, net: Path, pipeline: str, message: str) -> None:
    assert message in refused(cli, "run", pipeline, net, "-o", "out.onnx")


def test_a_pipeline_error_points_a_caret(cli: Cli, net: Path) -> None:
    lines = refused(cli, "run", "prune{macs=1}, compct", net, "-o", "out.onnx").splitlines()
    assert lines[1:] == ["  prune{macs=1}, compct", "                 ^"]


def test_an_error_in_a_pipeline_file_has_a_place(cli: Cli, net: Path) -> None:
    path = Path("p.pipe")
    path.write_text("normalize,  # first\nprune{ratio=2},\ncompact\n")
    reason = refused_at(cli, (path, 2, 13), "run", "@p.pipe", net, "-o", "out.onnx")
    assert reason.startswith("ratio=2.0 must lie in [0, 1)")


def test_an_impossible_target_says_the_nearest_reachable(cli: Cli, net: Path) -> None:
    message = refused(cli, "run", "normalize, prune{macs=0.0001}, compact", net, "-o", "out.onnx")
    assert "macs=0.0001 cannot be reached" in message
    assert "ask for macs=" in message


def test_a_plan_that_is_never_compacted(cli: Cli, net: Path) -> None:
    message = refused(cli, "run", "normalize, prune{macs=0.5}", net, "-o", "out.onnx")
    assert "add compact to the pipeline" in message


def test_outputs_that_cannot_be_written(cli: Cli, net: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for output, reason in (
        ("missing/out.onnx", "cannot write into the folder missing: No such file"),
        ("net.onnx/out.onnx", "cannot write into the folder net.onnx: Not a directory"),
        ("folder", "is a folder"),
        ("/proc/out.onnx", "cannot write into the folder /proc"),
    ):
        for flag in ("-o", "--plan", "--base"):
            assert reason in refused(cli, "run", PIPELINE, net, flag, output)


def test_an_output_never_overwrites_an_input(cli: Cli, net: Path) -> None:
    data = net.read_bytes()
    for output in ("net.onnx", net, "./net.onnx"):
        message = refused(cli, "run", PIPELINE, net, "-o", output)
        assert "is also an input of this command; choose another output path" in message
    assert "is also an output" in refused(
        cli, "run", PIPELINE, net, "-o", "a.onnx", "--base", "a.onnx"
    )
    assert net.read_bytes() == data


def test_nothing_to_write(cli: Cli, net: Path) -> None:
    assert "add -o OUT.onnx" in refused(cli, "run", PIPELINE, net)


def test_reports_are_json_or_html(cli: Cli, net: Path) -> None:
    message = refused(cli, "run", PIPELINE, net, "-o", "out.onnx", "--report", "r.pdf")
    assert "reports are JSON or HTML" in message


def test_print_after_a_pass_that_does_not_run(cli: Cli, net: Path) -> None:
    message = refused(cli, "run", PIPELINE, net, "-o", "out.onnx", "--print-after", "compct")
    assert "did you mean `compact`?" in message


@pytest.mark.parametrize(
    "shape", ["x", "x=", "=1x3", "x=1x-3x8x8", "x=axb", "x=1x3x8", "x=1x4x8x8", "z=1x3x8x8"]
)
def test_bad_shapes(cli: Cli, net: Path, shape: str) -> None:
    done = cli("run", PIPELINE, net, "-o", "out.onnx", "--shape", shape)
    assert done.exit_code == 2
    assert not Path("out.onnx").exists()
    assert shape.partition("=")[0] in done.stderr


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({"z": np.ones((1, 3, 8, 8), np.float32)}, "z"),
        ({"x": np.ones((1, 3, 8), np.float32)}, "x"),
        ({"x": np.ones((1, 4, 8, 8), np.float32)}, "x"),
        ({"x": np.ones((1, 3, 8, 8), np.float64)}, "x"),
        ({"x": np.array([{}], object)}, "not a usable .npz archive of plain arrays"),
    ],
)
def test_bad_feeds(
    cli: Cli, net: Path, tmp_path: Path, feeds: dict[str, np.ndarray], reason: str
) -> None:
    np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]
    assert reason in refused(cli, "run", PIPELINE, net, "-o", "out.onnx", "--inputs", "feeds.npz")


def test_feeds_that_are_no_archive(cli: Cli, net: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("text.npz", "one.npy", "missing.npz"):
        message = refused(cli, "run", PIPELINE, net, "-o", "out.onnx", "--inputs", name)
        assert message.startswith(f"error: {name}: ")


def test_an_unknown_option_and_command(cli: Cli, net: Path) -> None:
    for args in (["run", PIPELINE, net, "--ouput", "x"], ["rnu", net], ["run"]):
        done = cli(*args)
        assert done.exit_code == 2
        assert done.stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="needs /proc and signals")
def test_as_a_process(net: Path, tmp_path: Path) -> None:
    net.write_bytes(net.read_bytes()[:1000])
    command = [sys.executable, "-m", "irprune", "run", PIPELINE, "net.onnx", "-o", "out.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.onnx").exists()
