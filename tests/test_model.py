"""Model files: what is read, what is refused, and how results are written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from strategies import Net, feeds_of, proto_of, relative_error, run, value_of

from irprune.errors import IrpruneError
from irprune.frontends.onnx import load
from irprune.model import Model, save
from irprune.text import print_model

WIDTH = 64


def _proto(seed: int = 0) -> onnx.ModelProto:
    net = Net(seed=seed)
    net.linear(net.op("Relu", net.tokens(WIDTH, "N")), WIDTH, 2, "y")
    return net.proto("y")


def _write(path: Path, proto: onnx.ModelProto | None = None) -> Path:
    onnx.save(proto or _proto(), path)
    return path


def _external(folder: Path, location: str = "weights.bin") -> Path:
    """A model whose large weight lies in a file beside it."""
    path = folder / "model.onnx"
    onnx.save(
        _proto(), path, save_as_external_data=True, location=location, size_threshold=64,
    )  # fmt: skip
    return path


def _same_results(left: onnx.ModelProto, right: onnx.ModelProto) -> None:
    feeds = feeds_of(left, 1)
    expected, actual = run(left, feeds), run(right, feeds)
    assert all(relative_error(actual[name], expected[name]) == 0 for name in expected)


# Reading and writing


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "net.onnx")
    model = load(path)
    assert model.provenance.name == "net"
    assert model.provenance.path == path
    assert model.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    model.save(tmp_path / "copy.onnx")
    _same_results(onnx.load(path), onnx.load(tmp_path / "copy.onnx"))


def test_what_stands_in_the_file_stays(tmp_path: Path) -> None:
    proto = _proto()
    proto.producer_name, proto.producer_version, proto.doc_string = "maker", "7", "a net"
    proto.model_version, proto.domain = 3, "ai.example"
    helper.set_model_props(proto, {"author": "someone", "task": "test"})
    load(_write(tmp_path / "net.onnx", proto)).save(tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    for field in ("ir_version", "producer_name", "producer_version", "doc_string", "model_version"):
        assert getattr(copy, field) == getattr(proto, field)
    assert list(copy.opset_import) == list(proto.opset_import)
    assert {p.key: p.value for p in copy.metadata_props} == {"author": "someone", "task": "test"}
    assert [v.name for v in copy.graph.input] == [v.name for v in proto.graph.input]
    assert copy.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _write(tmp_path / "net.onnx")
    for name in ("a.onnx", "b.onnx"):
        load(path).save(tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_clone_shares_weights_and_nothing_else() -> None:
    model = Model.from_proto(_proto())
    copy = model.clone()
    value_of(copy, "p.w").const_value = None
    copy.ir.graph.remove(list(copy.ir.graph)[-1], safe=False)
    assert value_of(model, "p.w").const_value is not None
    assert len(model.ir.graph) == 3


def test_an_ir_model_is_copied() -> None:
    first = Model.from_proto(_proto())
    second = Model.from_ir(first.ir, "again")
    second.ir.graph.name = "other"
    assert first.ir.graph.name == "net"
    assert second.provenance.name == "again"


def test_the_output_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    model = Model.from_proto(_proto())
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", _fail)
    with pytest.raises(IrpruneError, match="cannot write: No space left"):
        model.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _fail(self: Path, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="cannot write here"):
        Model.from_proto(_proto()).save(tmp_path / "none" / "net.onnx")


def test_a_bare_graph_can_be_saved(tmp_path: Path) -> None:
    model = Model.from_proto(_proto())
    save(model.ir, tmp_path / "net.onnx")
    _same_results(proto_of(model), onnx.load(tmp_path / "net.onnx"))


@pytest.mark.shared
def test_real_models_survive_their_files(shared: Path, tmp_path: Path) -> None:
    paths = sorted((shared / "models" / "onnx").rglob("*.onnx"))
    assert paths
    for path in paths:
        model = load(path)
        model.save(tmp_path / "copy.onnx")
        again = load(tmp_path / "copy.onnx")
        assert print_model(again.ir) == print_model(model.ir), path.name
        assert {*model.overridable} <= {*again.overridable}, path.name


# External data


def test_external_data_stays_external(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = _external(tmp_path / "in")
    model = load(path)
    assert model.provenance.external
    data = (tmp_path / "in" / "weights.bin").read_bytes()
    assert model.provenance.sha256 == hashlib.sha256(path.read_bytes() + data).hexdigest()
    model.save(tmp_path / "out.onnx")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "out.onnx", "out.onnx.data"]
    _same_results(onnx.load(path), onnx.load(tmp_path / "out.onnx"))


def test_the_caller_says_where_weights_go(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    model = load(_external(tmp_path / "in"))
    model.save(tmp_path / "one.onnx", external=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "one.onnx"]
    again = load(tmp_path / "one.onnx")
    assert not again.provenance.external
    again.save(tmp_path / "two.onnx", external=True)
    assert (tmp_path / "two.onnx.data").is_file()
    _same_results(onnx.load(tmp_path / "one.onnx"), onnx.load(tmp_path / "two.onnx"))


def test_a_model_with_external_data_can_replace_itself(tmp_path: Path) -> None:
    model = load(_external(tmp_path, "model.onnx.data"))
    expected = proto_of(Model.from_proto(_proto()))
    model.save(tmp_path / "model.onnx")
    _same_results(expected, onnx.load(tmp_path / "model.onnx"))


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    path = _external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(IrpruneError, match=r"external data weights\.bin of tensor p\.w is missing"):
        load(path)


def test_short_external_data_is_refused(tmp_path: Path) -> None:
    path = _external(tmp_path)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(IrpruneError, match=r"weights\.bin has \d+ bytes, tensor y\.w needs \d+"):
        load(path)


@pytest.mark.parametrize(
    ("key", "number"),
    [(key, number) for key in ("offset", "length") for number in ("many", "-8", "")]
    + [("length", "3"), ("offset", "99999")],
)
def test_malformed_external_entries_are_refused(tmp_path: Path, key: str, number: str) -> None:
    proto = onnx.load(_external(tmp_path), load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == "y.w")
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = number
    with pytest.raises(IrpruneError, match=r"tensor y\.w"):
        load(_write(tmp_path / "model.onnx", proto))


def test_external_data_without_a_length_is_measured_by_the_shape(tmp_path: Path) -> None:
    proto = onnx.load(_external(tmp_path), load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == "y.w")
    kept = [entry for entry in tensor.external_data if entry.key != "length"]
    del tensor.external_data[:]
    tensor.external_data.extend(kept)
    load(_write(tmp_path / "model.onnx", proto))
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(IrpruneError, match=r"weights\.bin has \d+ bytes, tensor y\.w needs \d+"):
        load(tmp_path / "model.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    proto = onnx.load(_external(folder), load_external_data=False)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    with pytest.raises(IrpruneError, match="points outside the model's folder"):
        load(_write(folder / "model.onnx", proto))


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = _external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    os.symlink(tmp_path / "weights.bin", folder / "weights.bin")
    with pytest.raises(IrpruneError, match="points outside the model's folder"):
        load(path)


# Files that are no models


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="cannot read the model: No such file") as raised:
        load(tmp_path / "none.onnx")
    assert str(raised.value).startswith(str(tmp_path / "none.onnx"))


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08", b"<html></html>", bytes(100)])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(IrpruneError, match="not an ONNX protobuf|the graph is empty"):
        load(path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, part: float) -> None:
    path = _write(tmp_path / "net.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(IrpruneError, match="not an ONNX protobuf, or truncated"):
        load(path)


def test_an_empty_graph_is_refused(tmp_path: Path) -> None:
    proto = _proto()
    del proto.graph.node[:]
    with pytest.raises(IrpruneError, match="the graph is empty"):
        load(_write(tmp_path / "net.onnx", proto))


def _graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(list(nodes), "net", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    proto = _graph(
        helper.make_node("Add", ["x", "b"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "second"),
        helper.make_node("Neg", ["b"], ["y"], "third"),
    )
    with pytest.raises(IrpruneError, match="the graph has a cycle"):
        load(_write(tmp_path / "net.onnx", proto))


def test_an_input_from_nowhere_is_refused(tmp_path: Path) -> None:
    proto = _graph(helper.make_node("Add", ["x", "ghost"], ["y"], "first"))
    with pytest.raises(IrpruneError, match=r"first \(Add\): input ghost is produced by no node"):
        load(_write(tmp_path / "net.onnx", proto))


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    proto = _graph(
        helper.make_node("Neg", ["a"], ["y"], "second"),
        helper.make_node("Relu", ["x"], ["a"], "first"),
    )
    model = load(_write(tmp_path / "net.onnx", proto))
    assert [node.name for node in model.ir.graph] == ["first", "second"]


def _weight(**fields: object) -> onnx.ModelProto:
    proto = _proto()
    tensor = next(t for t in proto.graph.initializer if t.name == "y.w")
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, name, value)
    return proto


@pytest.mark.parametrize(
    "fields",
    [
        {"raw_data": bytes(10)},
        {"raw_data": b""},
        {"dims": [WIDTH, 3]},
        {"dims": [WIDTH, -2]},
        {"data_type": TensorProto.DOUBLE},
        {"data_type": 99},
        {"data_type": 0},
    ],
)
def test_a_weight_whose_bytes_do_not_fit_is_refused(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    with pytest.raises(IrpruneError, match=r"y\.w"):
        load(_write(tmp_path / "net.onnx", _weight(**fields)))


def test_a_weight_with_too_few_numbers_is_refused(tmp_path: Path) -> None:
    proto = _proto()
    tensor = next(t for t in proto.graph.initializer if t.name == "y.w")
    numbers = numpy_helper.to_array(tensor).ravel()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(numbers)
    load(_write(tmp_path / "good.onnx", proto))
    del tensor.float_data[-1]
    with pytest.raises(IrpruneError, match=r"y\.w"):
        load(_write(tmp_path / "net.onnx", proto))


# Initializers that are graph inputs too


@pytest.mark.parametrize(("version", "names"), [(3, ["p.w", "y.w"]), (8, ["y.w"])])
def test_listed_initializers_are_weights_and_listed_again(
    tmp_path: Path, version: int, names: list[str]
) -> None:
    proto = _proto()
    proto.ir_version = version
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(info)
    model = load(_write(tmp_path / "net.onnx", proto))
    assert [v.name for v in model.ir.graph.inputs] == ["p.x"]
    assert model.overridable == tuple(names)
    model.save(tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    assert [v.name for v in copy.graph.input] == ["p.x", *names]
    onnx.checker.check_model(copy)
    assert [v.name for v in model.ir.graph.inputs] == ["p.x"]
    feeds = feeds_of(_proto(), 1)
    assert np.array_equal(run(copy, feeds)["y"], run(proto, feeds)["y"])
