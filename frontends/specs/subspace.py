"""The promising subspace: the pruned networks that are worth exploring.

Wootz, section 4 and Figure 3 (a): a list of configurations, each a list of pruning rates, one per
layer or per module. A rate in a file is the fraction of filters *removed*, 0 for unpruned. (The
forerunner paper's δ is the fraction *kept*: `irprune.explore.sampling` converts.)

Forms, by suffix:

- `.toml`, `.json`: a key `configs` with the list of lists, optionally `modules` (their names),
  `rates = "removed"` and `origin` (free text); JSON may also be the bare list of lists;
- `.pkl`, `.pickle`, `.p`: the list or numpy array as `pickle.dump` writes it, read without
  unpickling (`pickled.py`);
- any other: `configs = [[0.3, 0], [0.5, 0]]` as in the figure, the bare list, or one configuration
  per line; comments and string literals between them are skipped and nothing is executed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from irprune.atomic import write_text
from irprune.errors import IrpruneError
from irprune.frontends.specs.document import Text, decode, parse, read_bytes
from irprune.frontends.specs.pickled import load as load_pickle
from irprune.pipeline.options import choices

_KEYS = ("configs", "modules", "rates", "origin")
_PICKLES = (".pkl", ".pickle", ".p")
_EXAMPLE = "write e.g. configs = [[0.3, 0], [0.5, 0]]"

Fail = Callable[[Sequence[int], str], IrpruneError]
"""Makes the error about the configuration, or the rate of a configuration, at some indices."""


@dataclass(frozen=True)
class Subspace:
    """Configurations to explore, each the fraction *removed* per module (or layer)."""

    removed: tuple[tuple[float, ...], ...]
    modules: tuple[str, ...] | None = None
    """The names of the modules, where the file gives them."""
    origin: str = ""
    """Where the configurations come from, in free text."""
    repeats: tuple[tuple[int, int], ...] = ()
    """Repeated configurations that were left out: index in the file, and of the one it repeats."""

    def __len__(self) -> int:
        return len(self.removed)

    @property
    def kept(self) -> tuple[tuple[float, ...], ...]:
        """The configurations as fractions *kept*: δ of the forerunner paper, section 3.2."""
        return tuple(tuple(1 - rate for rate in config) for config in self.removed)

    def save(self, path: Path) -> None:
        """Write the subspace as TOML or JSON, by the suffix of `path` (IrpruneError)."""
        if path.suffix not in (".toml", ".json"):
            raise IrpruneError("a subspace is written as .toml or .json", file=path)
        head: dict[str, Any] = {"rates": "removed"}
        if self.origin:
            head["origin"] = self.origin
        if self.modules is not None:
            head["modules"] = list(self.modules)
        write_text(path, _toml(head, self.removed) if path.suffix == ".toml" else self._json(head))

    def _json(self, head: dict[str, Any]) -> str:
        rows = ",\n  ".join(json.dumps(config) for config in self.removed)
        keys = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
        return f'{{\n{keys} "configs": [\n  {rows}\n ]\n}}\n'


def read_subspace(
    path: Path | str, *, modules: int | None = None, names: Sequence[str] | None = None
) -> Subspace:
    """The subspace in a file, for a network of `modules` modules or with these module `names`.

    Raises:
        IrpruneError: the file cannot be read, is malformed, or a configuration makes no sense.
    """
    path = Path(path)
    data = read_bytes(path)
    if path.suffix in _PICKLES or (not _suffix_known(path) and _looks_pickled(data)):
        return _of_pickle(data, path, modules, names)
    form = path.suffix[1:] if path.suffix in (".toml", ".json") else "text"
    return parse_subspace(decode(data, path), form, modules=modules, names=names)


def parse_subspace(
    source: Text,
    form: str = "text",
    *,
    modules: int | None = None,
    names: Sequence[str] | None = None,
) -> Subspace:
    """The subspace that a text of `form` (`toml`, `json` or `text`) spells (SpecError)."""
    if form == "text":
        return _of_text(source, modules, names)
    if form == "json" and source.text.lstrip().startswith("["):
        # The bare list, as a document with one key, so that positions stay right.
        shift = len('{"configs":')
        wrapped = parse(Text('{"configs":' + source.text + "}", source.file), form)
        found = {keys: max(0, spot - shift) for keys, spot in wrapped.spots.items()}
        rows = wrapped.data["configs"]

        def fail(spot: Sequence[int], reason: str) -> IrpruneError:
            return source.error(found.get(("configs", *spot), 0), reason)

        return _checked(rows, fail, modules, names)
    document = parse(source, form)

    def fail_at(spot: Sequence[int], reason: str) -> IrpruneError:
        return document.error("configs", *spot, reason=reason)

    for key in document.data:
        if key not in _KEYS:
            raise document.error(key, reason=f"unknown key `{key}`", mend=choices(key, _KEYS))
    if "configs" not in document.data:
        raise document.error(reason="the key `configs` is missing", mend=_EXAMPLE)
    given = document.data.get("modules")
    if given is not None and not _strings(given):
        raise document.error("modules", reason="`modules` must be a list of different names")
    if document.data.get("rates", "removed") != "removed":
        mend = 'write `rates = "removed"`, and 1 - δ for each fraction δ that is kept'
        raise document.error("rates", reason="rates are fractions removed", mend=mend)
    origin = document.data.get("origin", "")
    if not isinstance(origin, str):
        raise document.error("origin", reason="`origin` must be text")
    if given is not None and names is not None and list(names) != given:
        raise document.error("modules", reason="`modules` are not those of the network")
    if given is not None and modules not in (None, len(given)):
        reason = f"{len(given)} modules are named, the network has {modules}"
        raise document.error("modules", reason=reason)
    return _checked(document.data["configs"], fail_at, modules, given or names, origin)


def _checked(
    rows: Any,
    fail: Fail,
    modules: int | None,
    names: Sequence[str] | None,
    origin: str = "",
) -> Subspace:
    """The subspace of these rows, every rate checked, repeats left out and told."""
    if not isinstance(rows, list) or not rows:
        raise fail((), "expected a list of configurations, at least one")
    length = modules if names is None else len(names)
    removed: dict[tuple[float, ...], int] = {}
    repeats = []
    for i, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise fail((i,), f"configuration {i} is no list of rates")
        if length is None:
            length = len(row)
        if len(row) != length:
            owner = "the network" if names is not None or modules is not None else "the first one"
            reason = f"configuration {i} has {len(row)} rates, {owner} has {length}"
            raise fail((i,), reason)
        for j, rate in enumerate(row):
            if type(rate) not in (int, float):
                raise fail((i, j), f"rate {j} of configuration {i} is no number")
            if not (0 <= rate < 1):
                reason = f"rate {j} of configuration {i} is {rate}, outside [0, 1)"
                raise fail((i, j), f"{reason}: rates are fractions removed")
        config = tuple(float(rate) + 0.0 for rate in row)
        if config in removed:
            repeats.append((i, removed[config]))
        else:
            removed[config] = i
    return Subspace(tuple(removed), None if names is None else tuple(names), origin, tuple(repeats))


def _of_text(source: Text, modules: int | None, names: Sequence[str] | None) -> Subspace:
    """The subspace of Python-like text; it is parsed to a syntax tree, which is never run."""
    try:
        with catch_warnings():
            simplefilter("ignore")  # of Python's compiler: what it warns of is refused or skipped
            body = ast.parse(source.text).body
    except SyntaxError as error:
        spot = source.offset(error.lineno or 1, max(1, error.offset or 1))
        raise source.error(spot, f"expected a list of lists: {error.msg}", _EXAMPLE) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise source.error(0, f"cannot be parsed: {error or 'nested too deeply'}") from error
    spots = _Lines(source)
    rows: list[ast.expr] = []
    assigned = False
    for statement in body:
        value = _configs(statement, spots)
        if value is None:
            continue
        if assigned or (rows and isinstance(statement, ast.Assign)):
            raise spots.error(statement, "the configurations are given twice")
        assigned = isinstance(statement, ast.Assign)
        if _nested(value) or assigned:
            rows.extend(value.elts)
        else:
            rows.append(value)
    values = [_row(row, spots) for row in rows]

    def fail(spot: Sequence[int], reason: str) -> IrpruneError:
        if not spot:
            return source.error(0, reason, _EXAMPLE)
        node = rows[spot[0]]
        if len(spot) == 2 and isinstance(node, ast.List | ast.Tuple):
            node = node.elts[spot[1]]
        return spots.error(node, reason)

    return _checked(values, fail, modules, names)


def _configs(statement: ast.stmt, spots: _Lines) -> ast.List | ast.Tuple | None:
    """The list that a statement gives; None for a string literal, which is a comment."""
    match statement:
        case ast.Expr(ast.Constant(str())):
            return None
        case ast.Expr(ast.List() | ast.Tuple() as value):
            return value
        case ast.Assign([ast.Name("configs")], ast.List() | ast.Tuple() as value):
            return value
        case ast.Expr(ast.Call()) | ast.Import() | ast.ImportFrom():
            raise spots.error(statement, "only lists of numbers are read, nothing is executed")
    raise spots.error(statement, "expected `configs = [...]` or a list of rates")


def _nested(value: ast.List | ast.Tuple) -> bool:
    return not value.elts or isinstance(value.elts[0], ast.List | ast.Tuple)


def _row(node: ast.expr, spots: _Lines) -> Any:
    """A configuration's rates; what is no list stays for the check that names it."""
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    return [_number(each, spots) for each in node.elts]


def _number(node: ast.expr, spots: _Lines) -> int | float:
    match node:
        case ast.Constant(bool()):
            pass
        case ast.Constant(int() | float() as value):
            return value
        case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, ast.Constant(int() | float() as value)):
            if not isinstance(value, bool):
                return -value if isinstance(sign, ast.USub) else value
    raise spots.error(node, "a rate must be a number")


class _Lines:
    """From places of syntax tree nodes (lines, bytes) to offsets."""

    def __init__(self, source: Text) -> None:
        self.source = source
        self.lines = source.text.split("\n")

    def error(self, node: ast.expr | ast.stmt, reason: str) -> IrpruneError:
        line = self.lines[node.lineno - 1] if node.lineno <= len(self.lines) else ""
        before = line.encode()[: node.col_offset].decode(errors="ignore")
        return self.source.error(self.source.offset(node.lineno, len(before) + 1), reason)


def _of_pickle(
    data: bytes, path: Path, modules: int | None, names: Sequence[str] | None
) -> Subspace:
    def fail(spot: Sequence[int], reason: str) -> IrpruneError:
        return IrpruneError(reason, file=path)

    return _checked(load_pickle(data, path), fail, modules, names)


def _suffix_known(path: Path) -> bool:
    return path.suffix in (".toml", ".json", ".txt", ".py")


def _looks_pickled(data: bytes) -> bool:
    return data[:1] == b"\x80" or (data[:1] in (b"(", b"]", b"c") and data.endswith(b"."))


def _strings(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return False
    return 0 < len(set(value)) == len(value)


def _toml(head: dict[str, Any], removed: tuple[tuple[float, ...], ...]) -> str:
    """TOML text; its strings are those of JSON, but for DEL and the surrogates of `\\u`."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    rows = "".join(f"  {json.dumps(config)},\n" for config in removed)
    return "\n".join([*lines, f"configs = [\n{rows}]\n"]).replace("\x7f", "\\u007f")
