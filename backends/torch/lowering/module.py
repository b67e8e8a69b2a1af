"""The lowered network: a GraphModule whose tensors go by the names of the graph's initializers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import fx, nn

NAMES, VALUES = "irprune.names", "irprune.values"


class Lowered(fx.GraphModule):
    """A network made of ordinary layers; computes what the ONNX graph does.

    `named_parameters`, `named_buffers`, `state_dict` and `load_state_dict` speak the initializers'
    names. Where such a name is no path of attributes that torch can carry, or a layer holds the
    tensor under another one, `meta["irprune.names"]` maps the torch path to the initializer name.
    `meta["irprune.values"]` maps names of ONNX values to names of nodes of `graph`.
    """

    @property
    def initializer_names(self) -> Mapping[str, str]:
        """Initializer names by torch path, of those tensors that have another path."""
        names: Mapping[str, str] = self.meta.get(NAMES, {})
        return names

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
        for path, name in self.initializer_names.items():
            if prefix + path in result:
                result[prefix + name] = result.pop(prefix + path)
        return result

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names = self.initializer_names
        for path, name in names.items():
            if prefix + name in state_dict:
                state_dict[prefix + path] = state_dict[prefix + name]
        for name in set(names.values()):
            if not has_tensor(self, name):
                state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def has_tensor(module: nn.Module, path: str) -> bool:
    """Return whether a parameter or buffer lies at a path of attributes."""
    *parents, leaf = path.split(".")
    for part in parents:
        found = module._modules.get(part)
        if found is None:
            return False
        module = found
    return leaf in module._parameters or leaf in module._buffers
