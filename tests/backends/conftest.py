from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import parser

HEADER = '<ir_version: 8, opset_import: ["": 17]> '


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a graph in onnx's text syntax as a model file."""

    def write(name: str, graph: str) -> Path:
        path = tmp_path / name
        onnx.save(parser.parse_model(HEADER + graph), path)
        return path

    return write
