"""Layers that no inference graph holds: losses and measures, sinks, and heads that end a graph."""

from __future__ import annotations

from irprune.frontends.caffe.network import Layer

SINKS = ("HDF5Output", "Silence")
"""Layers that read blobs and make none."""

SHAPES_ONLY = ("PriorBox",)
"""Heads that look at the shapes of their bottoms, not at the numbers."""

HEADS = {
    "BoxAnnotator",
    "DetectionOutput",
    "PSROIPooling",
    "PriorBox",
    "Proposal",
    "Python",
    "ROIAlign",
    "ROIPooling",
    "RegionOutput",
    "Yolov3DetectionOutput",
    "YoloDetectionOutput",
}
"""Heads that are known, and known to have no counterpart in ONNX."""

_MEASURES = ("Accuracy", "DetectionEvaluate", "SoftmaxWithLoss", "VideoDetectionEvaluate")


def trains_only(layer: Layer) -> bool:
    """Whether a layer is a loss or a measure: by its type, or by the weight of its loss."""
    weights = [field.float() for field in layer.fields.all("loss_weight")]
    return layer.type in _MEASURES or layer.type.endswith("Loss") or any(weights)
