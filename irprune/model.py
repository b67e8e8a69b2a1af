"""A model in memory: the current graph, the base that the plan refers to, and provenance."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import onnx
import onnx_ir

from irprune.atomic import replacing
from irprune.errors import IrpruneError, listed
from irprune.plan import Plan
from irprune.roles import trained

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXTERNAL_THRESHOLD = 1024
_PROTOBUF_LIMIT = 2**31 - 2**24
_WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and data-parallel wrappers put before the names of a module's tensors."""
_UPDATED = "update the model that was lowered, or one pruned by the same plan"


@dataclass(frozen=True)
class Provenance:
    """Where a model came from."""

    name: str
    path: Path | None = None
    sha256: str | None = None
    external: bool = False
    """The file keeps weights in external data files."""


@dataclass(frozen=True)
class Parameter:
    """An entry of the state that the model's source keeps by name."""

    tensor: onnx_ir.TensorProtocol
    home: str | None
    """The initializer that the graph computes with; None where the forward does not use it."""


class Stateful(Protocol):
    """Something with tensors by name: a torch module."""

    def state_dict(self) -> Mapping[str, Any]: ...


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
    state: Mapping[str, Parameter] = field(default_factory=dict)
    """The source's own state by name, where it has one (a PyTorch module)."""

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, name: str = "model") -> Model:
        """Take an ONNX protobuf in memory; IrpruneError where it is not a usable graph."""
        return cls.adopt(onnx_ir.serde.deserialize_model(proto), Provenance(name))

    @classmethod
    def from_ir(cls, model: onnx_ir.Model, name: str = "model") -> Model:
        """Take an onnx-ir model in memory; it is copied, weights are shared."""
        return cls.adopt(model.clone(), Provenance(name))

    @classmethod
    def adopt(cls, model: onnx_ir.Model, provenance: Provenance) -> Model:
        """Take an onnx-ir model as it is; IrpruneError where its graph is not usable."""
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

    def tensors(self) -> dict[str, onnx_ir.TensorProtocol]:
        """Return what the model keeps by name: initializers, Constants, what only its state has."""
        found = {name: entry.tensor for name, entry in self.state.items() if entry.home is None}
        for name, value in self.ir.graph.initializers.items():
            if value.const_value is not None:
                found[name] = value.const_value
        constants = _constants(self.ir.graph).items()
        return found | {name: node.attributes["value"].as_tensor() for name, node in constants}

    def update_from(self, module: Stateful) -> None:
        """Write the tensors of a lowered module back into the graph; nothing else changes.

        Every initializer (or Constant) that the module's state names gets its numbers, in the dtype
        that it had; so does what only the state of the model's source has, such as counters. The
        module may be wrapped by `torch.compile`, DataParallel or DistributedDataParallel.

        Raises:
            IrpruneError: the module holds a tensor that the model lacks or has in another shape, or
                lacks a parameter; the model is then as it was.
        """
        known = self.tensors()
        given = _unwrapped(module.state_dict(), known)
        fresh = {name: _replacement(name, tensor, known) for name, tensor in given.items()}
        if missing := sorted(trained(self.ir) - given.keys()):
            raise IrpruneError(f"the module holds no {listed(missing)}", mend=_UPDATED)
        graph = self.ir.graph
        lifted = _constants(graph)
        for name, numbers in fresh.items():
            if name in lifted:
                lifted[name].attributes["value"] = onnx_ir.AttrTensor("value", numbers)
            elif name in graph.initializers:
                graph.initializers[name].const_value = numbers
        self.state = {
            name: replace(entry, tensor=fresh[name])
            if entry.home is None and name in fresh
            else entry
            for name, entry in self.state.items()
        }

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


def _constants(graph: onnx_ir.Graph) -> dict[str, onnx_ir.Node]:
    """Return the Constant nodes that hold a tensor, by the name of their output."""
    return {
        node.outputs[0].name or "": node
        for node in graph
        if node.op_type == "Constant" and not node.domain and "value" in node.attributes
    }


def _unwrapped(given: Mapping[str, Any], known: Container[str]) -> Mapping[str, Any]:
    """Return tensors by the names that they have inside of what wraps their module."""
    inner = given
    while not all(name in known for name in inner):
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in inner)), None)
        if prefix is None:
            return given
        inner = {name.removeprefix(prefix): tensor for name, tensor in inner.items()}
    return inner


def _replacement(
    name: str, tensor: Any, known: Mapping[str, onnx_ir.TensorProtocol]
) -> onnx_ir.Tensor[Any]:
    """Return the numbers of a torch tensor in the dtype of the one that they replace."""
    if name not in known:
        raise IrpruneError(f"the graph has no initializer {name}", mend=_UPDATED)
    old = known[name]
    if tuple(tensor.shape) != tuple(old.shape.numpy()):
        raise IrpruneError(
            f"{name} has the shape {[*tensor.shape]} in the module and "
            f"{[*old.shape.numpy()]} in the graph",
            mend=_UPDATED,
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.double()  # numpy knows no bfloat16; every float fits
    dtype = old.dtype.numpy()
    return onnx_ir.Tensor(tensor.numpy().astype(dtype), dtype=old.dtype, name=old.name)


def save(model: onnx_ir.Model, path: Path | str) -> None:
    """Write a bare graph to a file, atomically, weights inside where one protobuf holds them."""
    Model(model, Provenance("model")).save(path)


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
