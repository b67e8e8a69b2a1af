"""Starting: what is imported, how fast, and how the process ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ["torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "sympy", "networkx"]
REPORT = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"


def python(code: str, cwd: Path) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return found.stdout


@pytest.mark.parametrize("module", ["irprune", "irprune.cli", "irprune.pipeline.options"])
def test_importing_is_light(module: str, tmp_path: Path) -> None:
    assert python(f"import {module}; {REPORT}", tmp_path).strip() == "[]"


def test_help_is_light(tmp_path: Path) -> None:
    code = f"""
from irprune.cli import main
for command in [], ["run"], ["inspect"], ["bench"]:
    try:
        main([*command, "--help"], prog_name="irprune")
    except SystemExit as stop:
        assert not stop.code
{REPORT}"""
    assert python(code, tmp_path).splitlines()[-1] == "[]"


def test_help_is_fast(tmp_path: Path) -> None:
    """In processor seconds: how long the user waits, without what else the machine does."""
    command = [sys.executable, "-m", "irprune", "--help"]
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_python_dash_m_lists_the_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irprune", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("run", "inspect", "explain", "verify", "apply", "bench", "passes"):
        assert f"\n  {command} " in done.stdout


def test_the_library_names_load_on_demand(tmp_path: Path) -> None:
    code = "import irprune; print(irprune.load, irprune.Plan, sorted(irprune.__all__) != [])"
    assert "True" in python(code, tmp_path)


def test_bare_package_names_are_refused(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for folder in ("passes", "frontends", "backends"):
        code = f"import sys; sys.path.insert(0, {str(root)!r}); import {folder}"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert f"irprune.{folder}" in done.stderr.splitlines()[-1]


def test_an_interrupt_ends_with_one_line(net: Path) -> None:
    done = subprocess.Popen(
        [sys.executable, "-m", "irprune", "bench", net, "--rounds", "1000000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell lets what it runs in the background ignore interrupts, these tests too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stderr is not None
    assert "bench" in done.stderr.readline()
    time.sleep(0.5)
    done.send_signal(signal.SIGINT)
    assert done.wait(20) == 130
    assert done.stderr.read().splitlines()[-1] == "interrupted"
