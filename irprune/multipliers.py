"""How fast single weights learn: factors of learning rate and decay that a network states itself.

Caffe has them in the network, not in the solver (`lr_mult`, `decay_mult`). Here they are metadata
of initializers, so that they go where the graph goes: into files, and through pruning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    import onnx_ir as ir

_LR, _DECAY = "irprune.lr_mult", "irprune.decay_mult"


@dataclass(frozen=True)
class Multipliers:
    """What the learning rate and the weight decay are multiplied by for one weight."""

    lr: float = 1.0
    """0: frozen."""
    decay: float = 1.0

    def note(self, value: ir.Value) -> None:
        """Note them at an initializer."""
        for key, factor in ((_LR, self.lr), (_DECAY, self.decay)):
            if factor != 1:
                value.metadata_props[key] = repr(factor)


def multipliers(graph: ir.Graph) -> dict[str, Multipliers]:
    """Return the multipliers of initializers by name, but for those that are all 1.

    Raises:
        IrpruneError: the metadata holds no numbers.
    """
    found = {
        name: Multipliers(*(_factor(name, value.metadata_props, key) for key in (_LR, _DECAY)))
        for name, value in graph.initializers.items()
    }
    return {name: factors for name, factors in found.items() if factors != Multipliers()}


def _factor(name: str, notes: dict[str, str], key: str) -> float:
    try:
        return float(notes.get(key, 1))
    except ValueError as error:
        reason = f"its metadata {key} is no number: {notes[key]}"
        raise IrpruneError(reason, node=name, mend="export the model again") from error
