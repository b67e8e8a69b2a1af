"""`verify`: the proof of the run, earlier than at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.passbase import Context, Pass
from irprune.pipeline.evidence import prove_run

if TYPE_CHECKING:
    from irprune.model import Model


@dataclass(frozen=True)
class Verify(Pass):
    """Prove that the graph so far equals the masked original."""

    name: ClassVar[str] = "verify"
    transforms: ClassVar[bool] = False

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        return {"proof": prove_run(model, context)}
