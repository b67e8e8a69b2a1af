"""Every tool starts: what it takes from the package and from other tools is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"
OTHERS = "torchvision timm torch_pruning onnxsim cv2 safetensors sklearn matplotlib"
"""What tools/requirements.txt brings, and tests do without."""
CHILD = """
import importlib.util, runpy, sys
from pathlib import Path
from unittest.mock import MagicMock

class Stub:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others.split():
            return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        return MagicMock(__version__="0", __path__=[])

    def exec_module(self, module):
        pass

_, others, *tools = sys.argv
sys.meta_path.insert(0, Stub())
places, names = list(sys.path), [Path(tool).stem for tool in tools]
for tool in tools:
    sys.path[:] = [str(Path(tool).parent), *places]
    try:
        runpy.run_path(tool, run_name="imported")
    except Exception as error:
        print(f"{tool}: {error!r}")
    for name in names:  # the next one finds others by itself
        sys.modules.pop(name, None)
"""


def test_every_tool_can_be_imported() -> None:
    tools = sorted(map(str, [*TOOLS.glob("*.py"), *TOOLS.glob("experiments/*.py")]))
    assert len(tools) > 40
    command = [sys.executable, "-c", CHILD, OTHERS, *tools]
    child = subprocess.run(command, capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (0, ""), child.stderr
