"""A module captured by torch.export, written as a graph that keeps the module's own names."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from irprune import dropout
from irprune.errors import IrpruneError
from irprune.model import Model, Parameter, Provenance
from irprune.roles import BUFFER, PARAMETER, TRAINED
from irprune.tidy import add_initializer, remove_dead

MODULE, SOURCE = "irprune.module", "irprune.source"
_NOT_THEIRS = (f"{Path(torch.__file__).parent}/", "torch/", f"{Path(__file__).parent}/")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def from_torch(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> Model:
    """See `irprune.frontends.torch.from_torch`."""
    name = type(module).__name__
    batched = dynamic_shapes is None
    if batched:
        args, kwargs, dynamic_shapes = _dynamic_batch(module, args, kwargs)
    with _eval(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own deprecations
        try:
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=dynamic_shapes or None, strict=False
            )
        except Exception as error:  # torch.export raises what the module and its tracing raise
            mend = "mend the module"
            if dynamic_shapes:
                mend = "pass dynamic_shapes={} to fix all sizes, or mend the module"
            raise IrpruneError(
                f"torch.export cannot capture {name}: {_first_line(error)}", mend=mend
            ) from error
        try:
            exported = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False)
        except Exception as error:
            raise IrpruneError(
                f"torch.onnx cannot write {name}: {_first_line(error)}",
                mend="replace the operator that it names",
            ) from error
    assert exported is not None
    model = exported.model
    if batched:
        _name_batch(model.graph)
    for node in model.graph.all_nodes():
        _locate(node)
    _quiet_dropout(model.graph)
    _drop_zero_biases(model.graph)
    remove_dead(model)
    state = _keep_state(model.graph, module)
    dropout.note(model, sum(_drops(part) for part in module.modules()))
    adopted = Model.adopt(model, Provenance(name))
    adopted.state = state
    return adopted


@contextmanager
def _eval(module: nn.Module) -> Iterator[None]:
    """While it lasts, the module and all its parts are in eval mode."""
    flags = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in flags.items():
            part.training = training


def _dynamic_batch(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return the arguments and the dynamic shapes that free their common first axis.

    A batch of one becomes a batch of two: torch.export takes a length of one as a constant.
    """
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    length = next((tensor.shape[0] for tensor in tensors if tensor.dim()), None)

    def shared(leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == length

    def widened(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if length == 1 and shared(leaf) else leaf

    def free(leaf: Any) -> Any:
        return {0: torch.export.Dim.DYNAMIC} if shared(leaf) else None

    positional, named = pytree.tree_map(free, (args, kwargs))
    args, kwargs = pytree.tree_map(widened, (args, kwargs))
    if not kwargs:
        return args, kwargs, positional
    names = list(inspect.signature(module.forward).parameters)
    return args, kwargs, dict(zip(names, positional, strict=False)) | named


def _name_batch(graph: ir.Graph) -> None:
    """Call the symbols of the inputs' first axes ``batch``, wherever they occur."""
    dims = [value.shape[0] for value in graph.inputs if value.shape]
    symbols = {dim.value for dim in dims if isinstance(dim, ir.SymbolicDim)} - {None}
    if not symbols:
        return
    pattern = re.compile("|".join(rf"\b{re.escape(str(symbol))}\b" for symbol in symbols))
    values = {*graph.inputs} | {v for node in graph.all_nodes() for v in node.outputs}
    for value in values:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            pattern.sub("batch", dim.value)
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None
            else dim
            for dim in value.shape
        )


def _locate(node: ir.Node) -> None:
    """Replace the exporter's notes on a node by the module's path and the line of its forward."""
    notes = {key: node.metadata_props.pop(key) for key in list(node.metadata_props)}
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    node.metadata_props[MODULE] = scopes[-2] if len(scopes) > 1 and not scopes[0] else ""
    frames = _FRAME.findall(notes.get("pkg.torch.onnx.stack_trace", ""))
    theirs = [(file, line) for file, line in frames if not file.startswith(_NOT_THEIRS)]
    if theirs:
        node.metadata_props[SOURCE] = ":".join(theirs[-1])
    for value in node.outputs:
        value.metadata_props.clear()


def _drops(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0


def _quiet_dropout(graph: ir.Graph) -> None:
    """Make a Dropout that works in training mode whatever the module's flag an identity."""
    for node in list(graph.all_nodes()):
        if node.op_type == "Dropout" and not any(v.uses() for v in node.outputs[1:]):
            assert node.graph is not None
            identity = ir.node(
                "Identity", node.inputs[:1], name=node.name, metadata_props=node.metadata_props
            )
            ir.convenience.replace_nodes_and_values(
                node.graph, node, [node], [identity], node.outputs[:1], identity.outputs
            )


def _drop_zero_biases(graph: ir.Graph) -> None:
    """Take away the zeros that the exporter computes for a convolution without bias."""
    for node in graph.all_nodes():
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        while bias is not None and (maker := bias.producer()) is not None:
            if maker.op_type == "Constant":
                if not maker.attributes["value"].as_tensor().numpy().any():
                    node.resize_inputs(2)
                break
            if maker.op_type not in ("Expand", "CastLike"):
                break
            bias = maker.inputs[0]


def _keep_state(graph: ir.Graph, module: nn.Module) -> dict[str, Parameter]:
    """Make every name of the state_dict an initializer of its shape; return the state by name.

    Weights are copied, so that training the module does not change the model. A tied parameter
    has one home; its other names, and what the forward does not use, are initializers without use.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    own = set(parameters)
    own |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    for name, value in graph.initializers.items():
        value.metadata_props.clear()
        if value.const_value is not None:
            value.const_value = _copied(value.const_value)
        if name in own:
            value.metadata_props[PARAMETER] = TRAINED if name in trained else BUFFER
    tensors = module.state_dict(keep_vars=True)
    homes: dict[int, str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and name in graph.initializers:
            homes.setdefault(id(tensor), name)
    state = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):  # what a module's get_extra_state gave
            continue
        home = homes.get(id(tensor))
        if name not in graph.initializers:
            if home is None:
                kept = _copied(TorchTensor(tensor.detach(), name))
            else:
                tied = graph.initializers[home].const_value
                assert tied is not None
                kept = ir.Tensor(tied.numpy(), dtype=tied.dtype, name=name)
            add_initializer(graph, name, kept)
        found = graph.initializers[name]
        if found.const_value is None or found.const_value.shape != tuple(tensor.shape):
            raise IrpruneError(
                f"the exporter writes {name} with the shape {found.shape}, the module has "
                f"{list(tensor.shape)}"
            )
        state[name] = Parameter(found.const_value, home)
    return state


def _copied(tensor: ir.TensorProtocol) -> ir.Tensor[Any]:
    return ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def _first_line(error: BaseException) -> str:
    """The first line that says something of the innermost cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
