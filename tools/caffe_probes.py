"""Single Caffe layers in OpenCV and in irprune: where do they differ?

    python tools/caffe_probes.py

What irprune computes is tested against Caffe's definitions in tests/frontends/caffe.
"""

from __future__ import annotations

import cv2
import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from irprune.frontends.caffe.build import convert
from irprune.frontends.caffe.text import parse

PROBES = (
    ("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
    ("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    ("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 1 }"),
    ("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 3 pad: 1 }"),
    ("LRN", "lrn_param { local_size: 3 alpha: 0.6 }"),
    ("LRN", "lrn_param { local_size: 3 alpha: 0.6 k: 2 }"),
    ("LRN", "lrn_param { local_size: 3 alpha: 0.6 norm_region: WITHIN_CHANNEL }"),
    ("MVN", ""),
    ("MVN", "mvn_param { eps: 0.5 }"),
    ("MVN", "mvn_param { across_channels: true }"),
    ("ShuffleChannel", "shuffle_channel_param { group: 2 }"),
    ("Reorg", "reorg_param { stride: 2 }"),
    ("Interp", "interp_param { height: 7 width: 5 }"),
    ("Power", "power_param { power: 2 scale: 2 shift: 1 }"),
    ("BNLL", ""),
    ("ELU", "elu_param { alpha: 0.5 }"),
    ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
)
REASONS = {
    "lrn_param { local_size: 3 alpha: 0.6 k: 2 }": (
        "Caffe fills the denominator with `k` (lrn_layer.cpp), OpenCV does not read `k`: "
        "its output is the one for `k: 1`"
    ),
    "mvn_param { eps: 0.5 }": (
        "Caffe divides by `sqrt(var) + eps` (mvn_layer.cpp), OpenCV by `sqrt(var + eps)`"
    ),
}
SHAPE = (1, 8, 6, 6)


def probe(kind: str, body: str) -> float | None:
    """The largest difference relative to the largest number; None where the shapes differ."""
    sizes = " ".join(f"dim: {size}" for size in SHAPE)
    text = (
        f'input: "x" input_shape {{ {sizes} }} '
        f'layer {{ name: "y" type: "{kind}" bottom: "x" top: "y" {body} }}'
    )
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    proto = ir.serde.serialize_model(convert(parse(text)).model.ir)
    (ours,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(x, "x")
    theirs = net.forward()
    if theirs.shape != ours.shape:
        return None
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def table() -> str:
    lines = ["| layer | parameters | largest difference | why |", "| --- | --- | --- | --- |"]
    for kind, body in PROBES:
        found = probe(kind, body)
        shown = "other shape" if found is None else f"{found:.1e}"
        why = "" if found is not None and found <= 1e-4 else REASONS.get(body, "not explained")
        lines.append(f"| {kind} | {f'`{body}`' if body else ''} | {shown} | {why} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
