"""irprune: a structured-pruning compiler for ONNX models.

    import irprune
    model = irprune.load("model.onnx")
    result = irprune.run("prune{criterion=l1 macs=0.5}, compact, verify", model)
    result.model.save("small.onnx")

Importing the package imports nothing heavy; the names below are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from irprune.errors import CheckFailed, IrpruneError

if TYPE_CHECKING:
    from irprune.api import (
        Result,
        Settings,
        apply,
        bench,
        explain,
        inspect,
        load,
        run,
        verify,
    )
    from irprune.backends.torch import carry_optimizer, to_torch
    from irprune.explore.iterate import iterate
    from irprune.explore.train import train
    from irprune.frontends.caffe import from_caffe
    from irprune.frontends.graphsurgeon import from_graphsurgeon, to_graphsurgeon
    from irprune.frontends.torch import apply_to_module, export_state_dict, from_torch
    from irprune.model import Model
    from irprune.plan import Plan

__version__ = "0.1.0"

__all__ = [
    "CheckFailed",
    "IrpruneError",
    "Model",
    "Plan",
    "Result",
    "Settings",
    "apply",
    "apply_to_module",
    "bench",
    "carry_optimizer",
    "explain",
    "export_state_dict",
    "from_caffe",
    "from_graphsurgeon",
    "from_torch",
    "inspect",
    "iterate",
    "load",
    "run",
    "to_graphsurgeon",
    "to_torch",
    "train",
    "verify",
]

_HOMES = {
    "Model": "irprune.model",
    "Plan": "irprune.plan",
    "apply_to_module": "irprune.frontends.torch",
    "carry_optimizer": "irprune.backends.torch",
    "export_state_dict": "irprune.frontends.torch",
    "from_caffe": "irprune.frontends.caffe",
    "from_graphsurgeon": "irprune.frontends.graphsurgeon",
    "from_torch": "irprune.frontends.torch",
    "iterate": "irprune.explore.iterate",
    "to_graphsurgeon": "irprune.frontends.graphsurgeon",
    "to_torch": "irprune.backends.torch",
    "train": "irprune.explore.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'irprune' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "irprune.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
