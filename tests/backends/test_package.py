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


@pytest.mark.parametrize("module", ["runner", "bench", "device"])
def test_parent_side_leaves_onnxruntime_alone(module: str) -> None:
    done = python(
        f"import sys, irprune.backends.ort.{module};"
        "sys.exit(any(heavy in sys.modules for heavy in ('onnxruntime', 'onnx', 'onnx_ir')))"
    )
    assert done.returncode == 0, done.stderr
