"""Names of onnxruntime's execution providers."""

from __future__ import annotations

from collections.abc import Sequence

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


def short_name(provider: str) -> str:
    """Return what a user may call a provider: `cuda` for CUDAExecutionProvider."""
    return provider.removesuffix("ExecutionProvider").lower()


def full_name(name: str, available: Sequence[str]) -> str:
    """Return onnxruntime's name of a provider, given that or a short one in any case (`cuda`).

    Raises ValueError, which lists what is there, where it is not among those available.
    """
    for full in available:
        if name.lower() in (full.lower(), short_name(full)):
            return full
    listed = ", ".join(map(short_name, available))
    raise ValueError(f"this onnxruntime has no provider {name}; it has {listed}")
