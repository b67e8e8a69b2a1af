"""A model by its path, whichever frontend reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from irprune.model import Model

CAFFE = ".prototxt"


@dataclass(frozen=True)
class Source:
    """How to read a model: an ONNX file, a factory ``file.py:function``, which is executed, or a
    Caffe network and what belongs to it (see `from_caffe`)."""

    weights: Path | None = None
    phase: str = "TEST"
    stages: tuple[str, ...] = ()
    end_at_heads: bool = False
    dynamic_batch: bool = False
    warn: Callable[[str], None] = field(default=lambda message: None, compare=False)
    """Takes what a Caffe network has and the model has not."""

    def read(
        self, path: Path, seed: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> Model:
        """Return the model (IrpruneError: it cannot be read, or the options do not fit it).

        Args:
            seed: of what a Caffe network's fillers draw.
            shapes: sizes of inputs by name, for a factory or a Caffe network that leaves them out.
        """
        if path.suffix == CAFFE:
            from irprune.frontends.caffe import from_caffe

            return from_caffe(
                path,
                self.weights,
                phase=self.phase,
                stages=self.stages,
                shapes=shapes,
                seed=seed,
                end_at_heads=self.end_at_heads,
                dynamic_batch=self.dynamic_batch,
                warn=self.warn,
            )
        self.check(path)
        if is_onnx(path):
            from irprune.frontends.onnx import load

            return load(path)
        from irprune.frontends.torch import load_factory

        return load_factory(path, shapes or {})

    def check(self, path: Path) -> None:
        """Raise IrpruneError where options of Caffe networks go with another path."""
        if path.suffix != CAFFE and self != Source():
            given = "weights, phase, stage, end-at-heads and dynamic-batch"
            raise IrpruneError(f"{given} go with a {CAFFE}", file=path)


def is_onnx(path: Path) -> bool:
    """Return whether a path is that of an ONNX file."""
    from irprune.frontends.torch import is_factory

    return path.suffix != CAFFE and not is_factory(path)
