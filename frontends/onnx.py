"""ONNX files: read with bounded memory and checked before anything trusts them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError

from irprune.errors import IrpruneError
from irprune.model import Model, Provenance


def load(path: Path | str) -> Model:
    """Read an ONNX file; external data stays where it is and is memory-mapped.

    Raises:
        IrpruneError: the file is missing, not an ONNX protobuf, truncated, has an empty or
            cyclic graph, or names external data that is missing or outside its folder.
    """
    path = Path(path)
    digest = hashlib.sha256()
    proto = onnx.ModelProto()
    try:
        data = path.read_bytes()
        digest.update(data)
        proto.ParseFromString(data)
    except OSError as error:
        raise IrpruneError(f"cannot read the model: {error.strerror}", file=path) from error
    except DecodeError as error:
        raise IrpruneError(
            "not an ONNX protobuf, or truncated", file=path, mend="export or copy the model again"
        ) from error
    del data
    external = _check_external(proto, path, digest)
    if not proto.HasField("graph") or not proto.graph.node:
        raise IrpruneError("the graph is empty", file=path, mend="export the model again")
    if proto.graph.sparse_initializer:
        raise IrpruneError(
            "sparse initializers are not supported", file=path, mend="export dense weights"
        )
    _check_tensors(proto.graph, path)
    try:
        model = onnx_ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx-ir raises many kinds for what a stranger may send
        raise IrpruneError(f"not a usable ONNX graph: {error}", file=path) from error
    if external:
        onnx_ir.external_data.set_base_dir(model.graph, path.parent)
    return Model.adopt(model, Provenance(path.stem, path, digest.hexdigest(), external))


def _protos(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Iterate over every tensor of a graph, attributes and nested bodies included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _protos(attribute.g)
            for body in attribute.graphs:
                yield from _protos(body)


def _check_external(proto: onnx.ModelProto, path: Path, digest: hashlib._Hash) -> bool:
    """Raise IrpruneError where external data is missing, short or outside the model's folder."""
    folder = path.parent.resolve()
    found: dict[str, int] = {}
    for tensor in _protos(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in found:
            found[location] = _external_size(folder, location, tensor.name, path, digest)
        needed = _bytes(tensor, path)
        offset, length = entries.get("offset", "0"), entries.get("length", str(needed))
        if not offset.isdecimal() or length != str(needed):
            raise IrpruneError(
                f"tensor {tensor.name} states offset {offset!r} and length {length!r}, its shape "
                f"needs {needed} bytes",
                file=path,
                mend="export the model again",
            )
        end = int(offset) + needed
        if end > found[location]:
            raise IrpruneError(
                f"{location} has {found[location]} bytes, tensor {tensor.name} needs {end}",
                file=path,
                mend="copy the external data file again",
            )
    return bool(found)


def _external_size(
    folder: Path, location: str, tensor: str, path: Path, digest: hashlib._Hash
) -> int:
    target = (folder / location).resolve()
    if not location or folder not in target.parents:
        raise IrpruneError(
            f"tensor {tensor} points outside the model's folder: {location!r}",
            file=path,
            mend="keep external data beside the model",
        )
    if not target.is_file():
        raise IrpruneError(
            f"external data {location} of tensor {tensor} is missing",
            file=path,
            mend="copy it beside the model",
        )
    with target.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return target.stat().st_size


def _check_tensors(graph: onnx.GraphProto, path: Path) -> None:
    """Raise IrpruneError where the numbers of a tensor do not match its shape and dtype."""
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        needed, unit = _bytes(tensor, path), "bytes"
        found = len(tensor.raw_data)
        if not tensor.HasField("raw_data"):
            needed, unit = _entries(tensor), "numbers"
            found = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
        if found != needed:
            raise IrpruneError(
                f"tensor {tensor.name} has {found} {unit}, its shape {list(tensor.dims)} of "
                f"{onnx_ir.DataType(tensor.data_type).name} needs {needed}",
                file=path,
                mend="the file is damaged or names the wrong data type; export it again",
            )


def _bytes(tensor: onnx.TensorProto, path: Path) -> int:
    """Return the bytes that a tensor of this shape and dtype takes; none for strings."""
    try:
        dtype = onnx_ir.DataType(tensor.data_type)
        bits = 0 if dtype == onnx_ir.DataType.STRING else int(dtype.bitwidth)
    except (ValueError, TypeError) as error:
        raise IrpruneError(
            f"tensor {tensor.name} has the unknown data type {tensor.data_type}", file=path
        ) from error
    if any(dim < 0 for dim in tensor.dims):
        raise IrpruneError(f"tensor {tensor.name} has the shape {list(tensor.dims)}", file=path)
    count: int = prod(tensor.dims)
    return -(-count * bits // 8)


def _entries(tensor: onnx.TensorProto) -> int:
    """Return how many typed numbers such a tensor holds: two per complex one, small ones packed."""
    dtype = onnx_ir.DataType(tensor.data_type)
    count: int = prod(tensor.dims)
    if dtype in (onnx_ir.DataType.COMPLEX64, onnx_ir.DataType.COMPLEX128):
        return 2 * count
    bits = 8 if dtype == onnx_ir.DataType.STRING else int(dtype.bitwidth)
    return -(-count * min(bits, 8) // 8)
