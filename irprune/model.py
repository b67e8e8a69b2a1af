"""A model in memory: the current graph, the base that the plan refers to, and provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir
from google.protobuf.message import DecodeError

from irprune.atomic import replacing
from irprune.errors import IrpruneError
from irprune.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXTERNAL_THRESHOLD = 1024
_PROTOBUF_LIMIT = 2**31 - 2**24


@dataclass(frozen=True)
class Provenance:
    """Where a model came from."""

    name: str
    path: Path | None = None
    sha256: str | None = None
    external: bool = False
    """The file keeps weights in external data files."""


@dataclass
class Model:
    """The graph under compilation and what is known about it."""

    ir: onnx_ir.Model
    provenance: Provenance
    base: onnx_ir.Model | None = None
    """The graph that the plan refers to: the input after normalisation."""
    base_pipeline: str = ""
    """Canonical text of the passes that made the base from the input."""
    plan: Plan | None = None
    """From the base to the current graph: what `compact` has done so far."""
    pending: Plan | None = None
    """Selected over the current graph, not yet compacted."""
    overridable: tuple[str, ...] = ()
    """Initializers that the file also lists as graph inputs."""

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, name: str = "model") -> Model:
        """Take an ONNX protobuf in memory; IrpruneError where it is not a usable graph."""
        return cls._from_ir(onnx_ir.serde.deserialize_model(proto), Provenance(name))

    @classmethod
    def from_ir(cls, model: onnx_ir.Model, name: str = "model") -> Model:
        """Take an onnx-ir model in memory; it is copied, weights are shared."""
        return cls._from_ir(model.clone(), Provenance(name))

    @classmethod
    def _from_ir(cls, model: onnx_ir.Model, provenance: Provenance) -> Model:
        listed = tuple(v.name or "" for v in model.graph.inputs if v.is_initializer())
        if listed:
            real = [v for v in model.graph.inputs if not v.is_initializer()]
            model.graph.inputs.clear()
            model.graph.inputs.extend(real)
        check_graph(model.graph, provenance.path)
        return cls(model, provenance, overridable=listed)

    def clone(self) -> Model:
        """Copy the graphs; weights are shared."""
        return replace(
            self,
            ir=self.ir.clone(),
            base=None if self.base is None else self.base.clone(),
        )

    def save(self, path: Path | str, *, external: bool | None = None) -> None:
        """Write the model to a file, atomically.

        Args:
            path: the file to write.
            external: keep weights in ``<path>.data`` beside the file; by default where the
                input did, or where one protobuf cannot hold them.

        Raises:
            IrpruneError: the folder cannot be written.
        """
        path = Path(path)
        size = sum(t.nbytes for t in _tensors(self.ir.graph))
        external = self.provenance.external if external is None else external
        every = tuple(self.ir.graph.initializers)
        listed = self.overridable if self.ir.ir_version >= 4 else every
        with _listed(self.ir.graph, listed), _weights_kept(self.ir):
            if external or size > _PROTOBUF_LIMIT:
                _save_external(self.ir, path)
            else:
                _save_inside(self.ir, path)


def save(model: onnx_ir.Model, path: Path | str) -> None:
    """Write a bare graph to a file, atomically, weights inside where one protobuf holds them."""
    Model(model, Provenance("model")).save(path)


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
    return Model._from_ir(model, Provenance(path.stem, path, digest.hexdigest(), external))


def check_graph(graph: onnx_ir.Graph, path: Path | None = None) -> None:
    """Raise IrpruneError unless each node's inputs exist and no cycle joins them."""
    if not len(graph):
        raise IrpruneError("the graph is empty", file=path, mend="export the model again")
    known = {*graph.inputs, *graph.initializers.values()}
    ordered = True
    for node in graph:
        for value in node.inputs:
            if value is None or value in known:
                continue
            if value.producer() is None:
                raise IrpruneError(
                    f"input {value.name} is produced by no node",
                    file=path,
                    node=f"{node.name} ({node.op_type})",
                    mend="check the model with onnx.checker",
                )
            ordered = False
        known.update(node.outputs)
    if not ordered:
        try:
            graph.sort()
        except ValueError as error:
            raise IrpruneError("the graph has a cycle", file=path) from error


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


def _tensors(graph: onnx_ir.Graph) -> Iterable[onnx_ir.TensorProtocol]:
    return [v.const_value for v in graph.initializers.values() if v.const_value is not None]


class _listed:
    """While it lasts, the named initializers are graph inputs too, as the file had them."""

    def __init__(self, graph: onnx_ir.Graph, names: tuple[str, ...]) -> None:
        self.graph = graph
        self.extra = [graph.initializers[n] for n in names if n in graph.initializers]
        self.inputs = list(graph.inputs)

    def __enter__(self) -> None:
        self.graph.inputs.extend(self.extra)

    def __exit__(self, *_: object) -> None:
        self.graph.inputs.clear()
        self.graph.inputs.extend(self.inputs)


def _write(proto: onnx.ModelProto, path: Path) -> None:
    data = proto.SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def _weights_kept(model: onnx_ir.Model) -> Iterator[None]:
    """Put every weight back where it was: writing moves them into a file or into memory."""
    kept = {v: v.const_value for graph in model.graphs() for v in graph.initializers.values()}
    try:
        yield
    finally:
        for value, tensor in kept.items():
            value.const_value = tensor


def _save_external(model: onnx_ir.Model, path: Path) -> None:
    """Write weights to ``<path>.data`` (onnx-ir replaces it atomically), then the graph."""
    try:
        onnx_ir.external_data.unload_from_model(
            model, path.parent, f"{path.name}.data", size_threshold_bytes=_EXTERNAL_THRESHOLD
        )
    except OSError as error:
        raise IrpruneError(f"cannot write: {error.strerror}", file=path) from error
    _write(onnx_ir.serde.serialize_model(model), path)


def _save_inside(model: onnx_ir.Model, path: Path) -> None:
    """Write one file that holds the weights too, wherever they are now."""
    onnx_ir.external_data.load_to_model(model)
    _write(onnx_ir.serde.serialize_model(model), path)
