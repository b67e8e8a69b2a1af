"""The lowered network: a GraphModule whose tensors go by the names of the graph's initializers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

NAMES, VALUES = "irprune.names", "irprune.values"


@dataclass(frozen=True)
class _Result:
    """What a node yields, by the node's name: how arguments are pickled."""

    node: str


class Lowered(fx.GraphModule):
    """A network made of ordinary layers; computes what the ONNX graph does.

    `named_parameters`, `named_buffers`, `get_parameter`, `get_buffer`, `state_dict` and
    `load_state_dict` speak the initializers' names, of a pickled copy too. Where such a name is no
    path of attributes that torch can carry, or a layer holds the tensor under another one,
    `meta["irprune.names"]` maps the torch path to the initializer name.
    `meta["irprune.values"]` maps names of ONNX values to names of nodes of `graph`, and
    `meta["irprune.made-of"]` names of tensors that pruning made to the names of those it replaced.
    """

    @property
    def initializer_names(self) -> Mapping[str, str]:
        """Initializer names by torch path, of those tensors that have another path."""
        names: Mapping[str, str] = self.meta.get(NAMES, {})
        return names

    def get_parameter(self, target: str) -> nn.Parameter:
        """See nn.Module.get_parameter; takes an initializer name, or a torch path."""
        return super().get_parameter(self._path(target))

    def get_buffer(self, target: str) -> Tensor:
        """See nn.Module.get_buffer; takes an initializer name, or a torch path."""
        return super().get_buffer(self._path(target))

    def _path(self, name: str) -> str:
        paths = {initializer: path for path, initializer in self.initializer_names.items()}
        return paths.get(name, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the nodes: torch would trace the code anew, and lose the class and the names."""
        state = {name: held for name, held in self.__dict__.items() if name != "_graph"}
        steps = [
            (node.op, node.name, node.target, *map_arg((node.args, node.kwargs), _named))
            for node in self.graph.nodes
        ]
        return _restored, (state, steps)

    def _named_members(
        self,
        get_members_fn: Callable[..., Any],
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:
        names, start = self.initializer_names, f"{prefix}." if prefix else ""
        seen = set()
        for path, member in super()._named_members(
            get_members_fn, prefix, recurse, remove_duplicate
        ):
            name = start + names.get(path[len(start) :], path[len(start) :])
            if name not in seen:
                seen.add(name)
                yield name, member

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """See nn.Module.state_dict; keys are initializer names, and a tied tensor has one."""
        result = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        names = {prefix + path: prefix + name for path, name in self.initializer_names.items()}
        renamed = {names.get(key, key): held for key, held in result.items()}
        result.clear()
        result.update(renamed)
        return result

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names = self.initializer_names
        held = {
            prefix + path: state_dict[prefix + name]
            for path, name in names.items()
            if prefix + name in state_dict
        }
        for name in set(names.values()):
            if not has_tensor(self, name):
                state_dict.pop(prefix + name, None)
        state_dict.update(held)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _named(node: fx.Node) -> Any:
    return _Result(node.name)


def _restored(state: Mapping[str, Any], steps: list[tuple[Any, ...]]) -> Lowered:
    """Return the network that `Lowered.__reduce__` took apart."""
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def found(item: Any) -> Any:
        return made[item.node] if isinstance(item, _Result) else item

    for op, name, target, args, kwargs in steps:
        args, kwargs = map_aggregate((args, kwargs), found)
        made[name] = graph.create_node(op, target, args, kwargs, name)
    root = nn.Module()
    root.__dict__.update(state)
    module = Lowered(root, graph, "Lowered")
    module.__dict__.update(state)
    return module


def has_tensor(module: nn.Module, path: str) -> bool:
    """Return whether a parameter or buffer lies at a path of attributes."""
    *parents, leaf = path.split(".")
    for part in parents:
        found = module._modules.get(part)
        if found is None:
            return False
        module = found
    return leaf in module._parameters or leaf in module._buffers
