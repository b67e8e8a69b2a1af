"""The structure hash: equal for checkpoints of one architecture, different for anything else."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from irprune.fingerprint import structure_hash, weights_hash

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4] x) => (float[N,2,2] y)
<float[4,4] W = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, int64[3] s = {-1,2,2}>
{ h = MatMul(x, W)
  l = LeakyRelu <alpha = 0.5> (h)
  y = Reshape(l, s) }
"""


def fingerprint(text: str) -> str:
    return structure_hash(ir.serde.deserialize_model(onnx.parser.parse_model(text)))


def test_weights_do_not_count() -> None:
    assert fingerprint(TEXT) == fingerprint(TEXT.replace("{1,2,3", "{9,9,9"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("17]", "18]"),
        ("[N,4]", "[M,4]"),
        ("float[N,4]", "float16[N,4]"),
        ("alpha = 0.5", "alpha = 0.25"),
        ("LeakyRelu", "Elu"),
        ("{-1,2,2}", "{1,2,2}"),
        ("W", "V"),
        ("(h)", "(x)"),
        (" l ", " k "),
    ],
)
def test_structure_counts(old: str, new: str) -> None:
    assert old in TEXT
    assert fingerprint(TEXT.replace(old, new)) != fingerprint(TEXT)


def test_a_file_keeps_the_structure() -> None:
    """Attributes in memory are doubles, those of a file are single."""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(TEXT))
    node = next(node for node in model.graph if node.op_type == "LeakyRelu")
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.1)
    node.attributes["betas"] = ir.AttrFloat32s("betas", [0.1, 0.5])
    read = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    assert structure_hash(read) == structure_hash(model)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [("{1,2,3", "{9,2,3", False), ("{-1,2,2}", "{-1,4,1}", False), ("0.5", "0.25", True)],
)
def test_weights_are_told_apart(old: str, new: str, same: bool) -> None:
    one, two = (
        weights_hash(ir.serde.deserialize_model(onnx.parser.parse_model(text)))
        for text in (TEXT, TEXT.replace(old, new))
    )
    assert (one == two) is same
