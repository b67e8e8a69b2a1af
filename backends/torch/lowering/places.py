"""Where tensors and layers lie in the lowered network, by path of attributes."""

from __future__ import annotations

import keyword
import re
from collections import defaultdict
from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from irprune.backends.torch.lowering.module import has_tensor
from irprune.backends.torch.lowering.parameters import to_tensor
from irprune.roles import Role

_CONSTANTS = "constants"
_TENSORS = "tensors"
_COUNTER = "num_batches_tracked"
_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) | {"shape_env", "_tracer_cls"}
"""What torch calls attributes of a graph module."""


class Places:
    """Gives every initializer and layer a path; the initializer's own name wherever it can be.

    A layer whose tensors are named ``<path>.weight``, ``<path>.bias``, ... lies at that path.
    Others lie under the node's name, and their tensors' names are kept apart (`names`).

    Args:
        roles: what becomes of each initializer.
        spare: tensors by name, also those that nothing reads, such as counters of BatchNorm.
    """

    def __init__(
        self, roles: Mapping[ir.Value, Role], spare: Mapping[str, ir.TensorProtocol]
    ) -> None:
        self._roles, self._spare = roles, spare
        self._named = {value.name or "": value for value in roles}
        self._first = {name.partition(".")[0] for name in self._named}
        self._below: dict[str, set[str]] = defaultdict(set)
        for name in self._named:
            parts = name.split(".")
            for k in range(1, len(parts)):
                self._below[".".join(parts[:k])].add(parts[k])
        self._tensors: dict[ir.Value, Tensor] = {}
        self._layers: dict[str, nn.Module] = {}
        self._held: dict[str, Mapping[str, ir.Value]] = {}
        self._paths: dict[str, ir.Value | Tensor] = {}
        self._home: dict[ir.Value, str] = {}

    def tensor(self, value: ir.Value) -> str:
        """Return the path at which an initializer is read."""
        if value not in self._home:
            name = value.name or ""
            path = name if self._usable(name) else f"{_TENSORS}.t{len(self._home)}"
            self._home[value], self._paths[path] = path, value
        return self._home[value]

    def constant(self, tensor: Tensor) -> str:
        """Return the path of a constant that no state_dict lists."""
        path = f"{_CONSTANTS}.c{len(self._paths)}"
        self._paths[path] = tensor
        return path

    def layer(self, name: str, layer: nn.Module, tensors: Mapping[str, ir.Value]) -> str:
        """Return the path of a layer; one with equal settings and the same tensors is used again.

        The layer was made on the device ``meta``; its tensors are replaced here.
        """
        natural = _natural(tensors)
        if natural is None or not self._usable(natural) or self._clashes(natural, layer, tensors):
            natural = None
        path = natural or self._fresh(name)
        known = self._layers.get(path)
        if known is not None:
            same = self._held[path] == tensors and repr(known) == repr(layer)
            if same and type(known) is type(layer):
                return path
            path = self._fresh(name)
        for attribute, value in tensors.items():
            self._home.setdefault(value, f"{path}.{attribute}")
        self._layers[path], self._held[path] = layer, dict(tensors)
        return path

    def assemble(self, used: set[str]) -> nn.Module:
        """Return a module that holds the used layers and tensors at their paths."""
        root = nn.Module()
        for path in sorted(self._layers.keys() & used, key=lambda path: path.count(".")):
            layer = self._layers[path]
            for attribute, value in self._held[path].items():
                _put(layer, attribute, self._of(value))
            self._count(path, layer)
            _put(_parent(root, path), path.rpartition(".")[2], layer)
        for path in used - self._layers.keys():
            at = self._paths.get(path)
            if at is None or has_tensor(root, path):  # a layer holds it there
                continue
            tensor = self._of(at) if isinstance(at, ir.Value) else at
            _put(_parent(root, path), path.rpartition(".")[2], tensor)
        return root

    def names(self, module: nn.Module) -> dict[str, str]:
        """Return initializer names by path, of the tensors of a module that lie elsewhere."""
        found = {
            f"{path}.{attribute}": value.name or ""
            for path, tensors in self._held.items()
            for attribute, value in tensors.items()
        }
        found |= {p: v.name or "" for p, v in self._paths.items() if isinstance(v, ir.Value)}
        return {p: name for p, name in found.items() if p != name and has_tensor(module, p)}

    def mark_temporary(self, module: fx.GraphModule) -> None:
        """Leave constants out of the state_dict."""
        constants = module._modules.get(_CONSTANTS)
        if constants is not None:
            constants._non_persistent_buffers_set.update(constants._buffers)

    def _of(self, value: ir.Value | Tensor) -> Tensor:
        """Return the tensor of an initializer, one for all its uses."""
        if isinstance(value, Tensor):
            return value
        if value not in self._tensors:
            assert value.const_value is not None
            tensor = to_tensor(value.const_value.numpy())
            if self._roles[value] is Role.PARAMETER:
                tensor = nn.Parameter(tensor)
            self._tensors[value] = tensor
        return self._tensors[value]

    def _count(self, path: str, layer: nn.Module) -> None:
        """Keep the counter of a BatchNorm where there is one; an average does not need it."""
        if _COUNTER not in layer._buffers:
            return
        known = self._spare.get(f"{path}.{_COUNTER}")
        layer._buffers[_COUNTER] = None if known is None else to_tensor(known.numpy())

    def _usable(self, path: str) -> bool:
        """Return whether torch can carry a path: attributes that nothing else is called."""
        parts = path.split(".")
        if not all(parts) or any(part in _TAKEN or keyword.iskeyword(part) for part in parts):
            return False
        if parts[0] in (_CONSTANTS, _TENSORS):
            return False
        return not any(".".join(parts[:k]) in self._named for k in range(1, len(parts)))

    def _clashes(self, path: str, layer: nn.Module, tensors: Mapping[str, ir.Value]) -> bool:
        """Return whether an initializer below a path is called what the layer calls its own."""
        slots = layer._parameters | layer._buffers
        others = self._below.get(path, set()) - tensors.keys()
        return any(hasattr(layer, name) and slots.get(name) is None for name in others)

    def _fresh(self, name: str) -> str:
        """Return a path of one attribute that is free."""
        stem = re.sub(r"\W+", "_", name).strip("_") or "layer"
        if stem[0].isdigit() or stem in _TAKEN or keyword.iskeyword(stem):
            stem = f"layer_{stem}"
        path, count = stem, 1
        taken = {p.partition(".")[0] for p in self._layers} | self._first | {_CONSTANTS, _TENSORS}
        while path in taken:
            count += 1
            path = f"{stem}_{count}"
        return path


def _natural(tensors: Mapping[str, ir.Value]) -> str | None:
    """Return the path that all names share before the attribute."""
    paths = set()
    for attribute, value in tensors.items():
        path, _, last = (value.name or "").rpartition(".")
        if last != attribute:
            return None
        paths.add(path)
    return paths.pop() if len(paths) == 1 else None


def _parent(root: nn.Module, path: str) -> nn.Module:
    """Return the module in which the last attribute of a path lies, made where it is missing."""
    for part in path.split(".")[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        found = root._modules[part]
        assert found is not None
        root = found
    return root


def _put(module: nn.Module, name: str, item: Tensor | nn.Module) -> None:
    """Make a module, parameter or buffer an attribute, in place of what had its name."""
    for kinds in (module._parameters, module._buffers, module._modules):
        kinds.pop(name, None)
    if isinstance(item, nn.Module):
        module.add_module(name, item)
    elif isinstance(item, nn.Parameter):
        module.register_parameter(name, item)
    else:
        assert isinstance(item, torch.Tensor)
        module.register_buffer(name, item)
