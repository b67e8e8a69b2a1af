"""`print`: the graph as text, on the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.passbase import Context, Pass

if TYPE_CHECKING:
    from irprune.model import Model


@dataclass(frozen=True)
class Print(Pass):
    """Print the graph as text on stderr."""

    name: ClassVar[str] = "print"
    transforms: ClassVar[bool] = False

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        from irprune.text import print_model

        context.log(print_model(model.ir))
        return {}
