"""PyTorch modules: taken in with the names of their state_dict, and shrunk in place by a plan.

torch is imported when a function is called, never before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from irprune.model import Model
    from irprune.plan import Plan

__all__ = ["apply_to_module", "export_state_dict", "from_torch", "is_factory", "load_factory"]


class Outcome(Protocol):
    """What a run made: the pruned model and the base of its plan."""

    @property
    def model(self) -> Model: ...

    @property
    def base(self) -> Model: ...

    @property
    def plan(self) -> Plan: ...


def from_torch(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Model:
    """Take a module in as it computes in eval mode; its weights are copied.

    Every name of ``module.state_dict()`` becomes an initializer name, BatchNorm stays a node of its
    own, and each node knows its module and source line (`irprune.module`, `irprune.source`).

    Args:
        module: the network; its training flags are left as they are.
        args: example inputs, positional.
        kwargs: example inputs by name.
        dynamic_shapes: as of ``torch.export.export``; by default the first axis of every tensor
            that has the first one's length is the dynamic axis ``batch``. ``{}``: sizes are fixed.

    Raises:
        IrpruneError: torch is missing, or its exporter cannot capture the module.
    """
    _require()
    from irprune.frontends.torch import export

    return export.from_torch(module, tuple(args), dict(kwargs or {}), dynamic_shapes)


def export_state_dict(result: Outcome) -> dict[str, Tensor]:
    """Return the pruned state_dict of a run on a model of `from_torch`, by the original names.

    What the forward does not use (counters of BatchNorm, auxiliary heads) keeps its old shape.

    Raises:
        IrpruneError: the model is not from `from_torch`, or a pass moved values to where the module
            has no parameter (a folded BatchNorm, a bias that the module lacks).
    """
    _require()
    from irprune.frontends.torch import state

    return state.export_state_dict(result.model, result.base, result.plan)


def apply_to_module(
    module: nn.Module,
    plan: Plan,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Shrink a module in place by a plan made on its `from_torch` model; its forward stays.

    The module's own values are sliced; what a pass changed besides is in `export_state_dict`.
    Without `args` every changed layer must be one whose attributes are known. With example inputs a
    copy is shrunk first, run, and compared with the module whose dropped channels are masked.

    Raises:
        IrpruneError: the plan does not fit, or a layer cannot be shrunk; the module is untouched.
    """
    _require()
    from irprune.frontends.torch import shrink

    example = None if args is None else (tuple(args), dict(kwargs or {}))
    return shrink.apply_to_module(module, plan, example)


def is_factory(path: Path | str) -> bool:
    """Return whether a model is named as ``file.py:function``."""
    return ".py:" in Path(path).name


def load_factory(path: Path | str, shapes: Mapping[str, Sequence[int]]) -> Model:
    """Run ``file.py:function`` and take in what it returns: a module, or (module, args).

    This executes the file. For a lone module, `shapes` sizes the float arguments of its forward.

    Raises:
        IrpruneError: the file or function is missing or fails, or returns something else.
    """
    _require()
    from irprune.frontends.torch import factory

    return factory.load_factory(str(path), shapes)


def _require() -> None:
    missing = [name for name in ("torch", "onnxscript") if find_spec(name) is None]
    if missing:
        raise IrpruneError(
            f"PyTorch modules need {' and '.join(missing)}",
            mend="install the extra: pip install 'irprune[torch]'",
        )
