"""A built wheel holds the whole package: every module imports from it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("passes", "frontends", "backends")

IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import irprune
folder = pathlib.Path(sys.argv[1])
assert pathlib.Path(irprune.__file__).is_relative_to(folder), irprune.__file__
names = [m.name for m in pkgutil.walk_packages(irprune.__path__, "irprune.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(*names)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("irprune", *SIDES):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def _modules(folder: Path, prefix: str) -> set[str]:
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*.py")
        if "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_module_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        name for name in _modules(ROOT / "irprune", "irprune") if name.split("/")[1] not in SIDES
    }
    for side in SIDES:
        expected |= _modules(ROOT / side, f"irprune/{side}")
    assert {name for name in names if name.endswith(".py")} == expected
    assert "irprune/py.typed" in names
    for asset in ("page.html.j2", "page.css", "page.js"):
        assert f"irprune/reporting/{asset}" in names
    assert len(names) == len(set(names))


def test_every_module_imports_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", target]
    subprocess.run([*install, "--no-index", wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, target],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"irprune.passes.compact", "irprune.backends.ort.worker"} <= set(done.stdout.split())
