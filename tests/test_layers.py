"""The layers of the package: imports go downward, files stay short, start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("passes", "frontends", "backends")
UPPER = ("api", "explore", "cli")
MOST_LINES = 400
FRONT = ("irprune", "irprune.__main__")
"""The front door names what stands behind it."""
HEAVY = ("torch", "onnxruntime", "onnx_ir", "onnx", "sympy", "networkx", "ray")


def _files() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder, prefix in [
        (ROOT / "irprune", "irprune"),
        *((ROOT / s, f"irprune.{s}") for s in SIDES),
    ]:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if folder.name == "irprune" and parts[0] in SIDES:
                continue
            name = ".".join([prefix, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


FILES = _files()


def _imports(name: str) -> Iterator[str]:
    """The modules that a module imports, wherever in it; strings such as registry entries too."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _layer(module: str) -> str | None:
    """The part of the package that a module belongs to; None for other packages."""
    parts = module.split(".")
    if parts[0] != "irprune":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in (*SIDES, *UPPER) else "core"


def _allowed(layer: str) -> set[str]:
    if layer == "core":
        return {"core"}
    if layer in SIDES:
        return {"core", layer}
    if layer in ("api", "explore"):
        return {"core", *SIDES, "api", "explore"}
    return {"core", *SIDES, *UPPER}


def test_the_whole_package_is_looked_at() -> None:
    layers = {_layer(name) for name in FILES}
    assert {"core", "api", "cli", *SIDES} <= layers
    assert len(FILES) > 50


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downward(name: str) -> None:
    layer = _layer(name)
    assert layer is not None
    if name in FRONT:
        return
    reached = {_layer(module) for module in _imports(name)} - {None}
    assert reached <= _allowed(layer), f"{name} ({layer}) imports from {reached}"


def _files_of(name: str) -> set[str]:
    """The modules that a module imports; the package that it takes one of from is not meant."""
    found = set(_imports(name))
    return {m for m in found if not any(n in FILES and n.startswith(f"{m}.") for n in found)}


def test_no_files_import_each_other() -> None:
    """Not for types either: what two files both need has a file of its own."""
    graph = networkx.DiGraph((name, other) for name in FILES for other in _files_of(name))
    graph.remove_nodes_from([node for node in graph if node not in FILES or node in FRONT])
    circles = [c for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert not circles, circles


@pytest.mark.parametrize("name", FILES)
def test_files_stay_short(name: str) -> None:
    assert len(FILES[name].read_text().splitlines()) <= MOST_LINES


def test_the_sides_are_links_to_the_folders_at_the_root() -> None:
    for side in SIDES:
        link = ROOT / "irprune" / side
        assert link.is_symlink()
        assert link.readlink() == Path("..") / side
        assert link.resolve() == ROOT / side


@pytest.mark.parametrize("module", ["irprune", "irprune.cli"])
def test_starting_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "irprune" in loaded
    assert not loaded & set(HEAVY)
