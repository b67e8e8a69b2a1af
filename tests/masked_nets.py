"""What the tests of `dead-channels` share: nets with chosen filters, and the comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from strategies import Net, feeds_of, proto_of, relative_error, run

from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact
from irprune.passes.dead_channels import DeadChannels
from irprune.structure import check

Report = dict[str, Any]
Array = npt.NDArray[np.float32]


class Example(Net):
    """A net whose convolutions get chosen filters."""

    def filters(self, outer: int, inner: int, size: int = 3, zero: tuple[int, ...] = ()) -> Array:
        w = self.random.normal(size=(outer, inner, size, size)).astype(np.float32)
        w[list(zero)] = 0
        return w

    def layer(self, x: str, w: Array, b: Any = None, name: str = "", **attributes: Any) -> str:
        """A convolution; a kernel of 3 is padded."""
        attributes.setdefault("pads", [w.shape[2] // 2] * 4)
        inputs = [x, self.constant(w, f"{name}.w" if name else "")]
        if b is not None:
            inputs.append(self.constant(np.asarray(b, np.float32), f"{name}.b" if name else ""))
        return self.op("Conv", *inputs, name=name, **attributes)

    def norm(self, x: str, scale: Any, bias: Any, mean: Any = None, var: Any = None) -> str:
        """A BatchNormalization; by default of mean 0 and variance 1."""
        mean = np.zeros(len(scale)) if mean is None else mean
        var = np.ones(len(scale)) if var is None else var
        parts = [self.constant(np.asarray(p, np.float32)) for p in (scale, bias, mean, var)]
        return self.op("BatchNormalization", x, *parts)


def removed(model: Model, name: str, axis: int) -> list[int]:
    """The positions that the pending plan drops."""
    assert model.pending is not None
    mask = model.pending.axes.get(name, {}).get(axis)
    return [] if mask is None else np.flatnonzero(~mask).tolist()


def select(model: Model, **options: Any) -> Report:
    """Run the pass and compact; assert that every activation stays what it was."""
    proto = proto_of(model)
    report = DeadChannels(**options).run(model, Context())
    feeds = feeds_of(proto, 1)
    before, base = run(proto, feeds), run(proto_of(model), feeds)
    for name in before.keys() & base.keys():
        assert relative_error(base[name], before[name]) < 2e-5, name
    small = model.clone()
    Compact().run(small, Context())
    check(small, Context())
    after = run(proto_of(small), feeds)
    axes = {} if model.pending is None else model.pending.axes
    for name in base.keys() & after.keys():
        expected = before.get(name, base[name])
        for axis, mask in axes.get(name, {}).items():
            expected = np.compress(mask, expected, axis)
        assert relative_error(after[name], expected) < 2e-5, name
    return report


def counts(report: Report) -> dict[str, int]:
    return {reason: n for reason, n in report["removed"].items() if n}
