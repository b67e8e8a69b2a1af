"""The structure of a graph as a hash: what must agree for a plan to fit another checkpoint."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def structure_hash(model: ir.Model) -> str:
    """The SHA-256 of ops, attributes, names and shapes, in hexadecimal.

    The numbers of floating-point and quantised tensors do not count; those of `int64` and `bool`
    tensors do, since they are shapes, axes, indices and conditions.
    """
    digest = hashlib.sha256()
    for domain, version in sorted(model.opset_imports.items()):
        digest.update(f"opset {domain} {version}\n".encode())
    for line in _graph(model.graph):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
