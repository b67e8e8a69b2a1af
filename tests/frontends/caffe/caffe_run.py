"""Networks in text, converted and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from irprune.frontends.caffe.build import Imported, convert
from irprune.frontends.caffe.options import Options
from irprune.frontends.caffe.text import parse

Arrays = Mapping[str, np.ndarray]


def imported(
    text: str, weights: Mapping[str, Sequence[np.ndarray]] | None = None, **options: Any
) -> Imported:
    """The network that a text spells; its graph is a valid ONNX model."""
    blobs = None if weights is None else {name: list(found) for name, found in weights.items()}
    found = convert(parse(text, "net.prototxt"), blobs, Options(**options))
    onnx.checker.check_model(ir.serde.serialize_model(found.model.ir), full_check=True)
    return found


def run(found: Imported, feeds: Arrays) -> dict[str, np.ndarray]:
    """The outputs of the graph by name."""
    proto = ir.serde.serialize_model(found.model.ir)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    typed = {name: np.asarray(array, np.float32) for name, array in feeds.items()}
    return dict(zip(names, session.run(names, typed), strict=True))


def layer(kind: str, body: str = "", bottoms: int = 1, tops: int = 1) -> str:
    """The text of a layer `it` with bottoms x0, x1, ... and tops y0, y1, ..."""
    ends = [f'bottom: "x{k}"' for k in range(bottoms)] + [f'top: "y{k}"' for k in range(tops)]
    return f'layer {{ name: "it" type: "{kind}" {" ".join(ends)} {body} }}'


def apply_all(
    kind: str,
    body: str,
    *xs: np.ndarray,
    blobs: Sequence[np.ndarray] | None = None,
    tops: int = 1,
    **options: Any,
) -> list[np.ndarray]:
    """What a single layer makes of its bottoms: its tops."""
    inputs = "".join(
        f'input: "x{k}" input_shape {{ {" ".join(f"dim: {n}" for n in x.shape)} }} '
        for k, x in enumerate(xs)
    )
    weights = None if blobs is None else {"it": blobs}
    found = imported(inputs + layer(kind, body, len(xs), tops), weights, **options)
    y = run(found, {f"x{k}": x for k, x in enumerate(xs)})
    return [y[f"y{k}"] for k in range(tops)]


def apply(
    kind: str, body: str, *xs: np.ndarray, blobs: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """What a single layer makes of its bottoms: its only top."""
    return apply_all(kind, body, *xs, blobs=blobs)[0]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(y: np.ndarray, expected: np.ndarray) -> None:
    """Refuse another shape or other numbers."""
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
