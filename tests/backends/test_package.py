import subprocess
import sys
from pathlib import Path

import pytest

import irprune.backends


def python(code: str) -> subprocess.CompletedProcess[str]:
    root = Path(irprune.backends.__file__).parents[2]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)


def test_bare_name_is_refused() -> None:
    done = python("import backends")
    assert done.returncode == 1
    assert "ImportError: import irprune.backends" in done.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("runner", ("onnxruntime", "onnx", "onnx_ir")),
        ("bench", ("onnxruntime", "onnx", "onnx_ir")),
        ("device", ("onnxruntime",)),
    ],
)
def test_parent_side_leaves_onnxruntime_alone(module: str, heavy: tuple[str, ...]) -> None:
    done = python(
        f"import sys, irprune.backends.ort.{module};"
        f"sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert done.returncode == 0, done.stderr
