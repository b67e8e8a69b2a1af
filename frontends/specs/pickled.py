"""Pickle files of lists, tuples, numbers and numpy arrays, read without unpickling.

`pickletools` decodes the opcodes, which runs nothing, and a small stack machine of our own gives
a meaning to those that such values need. Names that a pickle would import are never imported:
the few that numpy's pickles use stand for functions of this file; any other is refused by name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from irprune.errors import IrpruneError

_MEND = "write the subspace as TOML, JSON or a list in a text file"
_MOST_ELEMENTS = 1 << 20
_NUMBERS = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"}
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSH = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_MARK = object()


class _Refused(Exception):
    """What the pickle asks for is not a list of numbers."""


@dataclass(frozen=True)
class _Global:
    """A name that the pickle would import."""

    name: str
    call: Callable[..., Any] | None


@dataclass
class _Dtype:
    """A numpy dtype under construction: the code, as in `f8`, and the byte order."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        """Take the state `(version, byteorder, subdtype, names, fields, ...)`."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("an unknown state of a numpy dtype")
        if any(part is not None for part in state[2:5]):
            raise _Refused("a structured numpy dtype")
        self.order = state[1]


@dataclass
class _Array:
    """A numpy array under construction; `values` are plain nested lists."""

    values: Any = None

    def build(self, state: Any) -> None:
        """Take the state `(version, shape, dtype, is_fortran, data)`."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an unknown state of a numpy array")
        _, shape, dtype, fortran, data = state
        self.values = _numbers(data, dtype, shape, "F" if fortran else "C")


def load(data: bytes, file: Path | str | None = None) -> Any:
    """The value that a pickle of protocol 0 to 5 holds, arrays as nested lists (IrpruneError)."""
    machine = _Machine()
    try:
        for opcode, arg, _ in pickletools.genops(data):
            machine.step(opcode.name, arg)
        return _plain(machine.pop(), [_MOST_ELEMENTS])
    except _Refused as error:
        reason = f"this pickle holds {error}; only lists, tuples, numbers and numpy arrays are read"
        raise IrpruneError(reason, file=file, mend=_MEND) from error
    except (ValueError, OverflowError, LookupError, RecursionError, AssertionError) as error:
        reason = f"this is no complete pickle ({str(error)[:100]})"
        raise IrpruneError(reason, file=file, mend=_MEND) from error


class _Machine:
    """The stack and the memo of the pickle format."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, arg: Any) -> None:
        """Execute one opcode."""
        match name:
            case "PROTO" | "FRAME" | "STOP":
                return
            case "MARK":
                self.stack.append(_MARK)
            case "EMPTY_LIST":
                self.stack.append([])
            case "LIST":
                self.stack.append(self._marked())
            case "TUPLE":
                self.stack.append(tuple(self._marked()))
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = 0 if name == "EMPTY_TUPLE" else int(name[-1])
                self.stack.append(tuple(reversed([self.pop() for _ in range(size)])))
            case "APPEND":
                item = self.pop()
                self._list().append(item)
            case "APPENDS":
                items = self._marked()
                self._list().extend(items)
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if name == "MEMOIZE" else arg] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if arg not in self.memo:
                    raise ValueError(f"nothing is stored as {arg}")
                self.stack.append(self.memo[arg])
            case "GLOBAL" | "STACK_GLOBAL":
                attribute, module = (
                    (self.pop(), self.pop())
                    if name == "STACK_GLOBAL"
                    else reversed(arg.split(" ", 1))
                )
                self.stack.append(_named(module, attribute))
            case "REDUCE":
                self._reduce()
            case "BUILD":
                state = self.pop()
                target = self._top()
                if not isinstance(target, _Dtype | _Array):
                    raise _Refused("an object with a state of its own")
                target.build(state)
            case _ if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            case _ if name in _PUSH:
                self.stack.append(arg)
            case _:
                _refuse_opcode(name, arg)

    def pop(self) -> Any:
        """Take the topmost value."""
        value = self._top()
        self.stack.pop()
        return value

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("a value is missing")
        return self.stack[-1]

    def _list(self) -> list[Any]:
        found = self._top()
        if not isinstance(found, list):
            raise ValueError("something is appended to what is no list")
        return found

    def _marked(self) -> list[Any]:
        items: list[Any] = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise ValueError("a mark is missing")
        self.stack.pop()
        return items[::-1]

    def _reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        if function.call is None:
            raise _Refused(f"a call of `{function.name}`")
        try:
            self.stack.append(function.call(*arguments))
        except TypeError as error:
            raise ValueError(f"wrong arguments of {function.name}") from error


def _refuse_opcode(name: str, arg: Any) -> NoReturn:
    if name == "INST":
        raise _Refused(f"an object of `{str(arg).replace(' ', '.')}`")
    kinds = {"DICT": "a dict", "EMPTY_DICT": "a dict", "EMPTY_SET": "a set", "FROZENSET": "a set"}
    raise _Refused(kinds.get(name, f"something that needs the opcode {name}"))


def _named(module: Any, attribute: Any) -> _Global:
    """What a name stands for; it is refused unless numpy's pickles use it."""
    name = f"{module}.{attribute}"
    if name not in _GLOBALS:
        raise _Refused(f"an import of `{name}`")
    return _Global(name, _GLOBALS[name])


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Dtype:
    if code not in _NUMBERS:
        what = "arbitrary objects" if code == "O8" else f"the dtype {code!r}"
        raise _Refused(f"a numpy array of {what}")
    return _Dtype(code)


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(_numbers(data, dtype, shape, order))


def _scalar(dtype: Any, data: Any) -> Any:
    return _numbers(data, dtype, (), "C")


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("text in an unexpected encoding")
    return text.encode("latin-1")


def _numbers(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """The elements of an array as nested lists; `data` must have exactly their bytes."""
    import math

    import numpy as np

    if isinstance(data, str):  # what Python 2 wrote
        data = data.encode("latin-1")
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
        raise _Refused("a numpy array of arbitrary objects")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("the array has no shape")
    size = int(dtype.code[1:])
    if len(shape) > 3 or order not in ("C", "F") or math.prod(shape) * size != len(data):
        raise ValueError("shape and content of the array disagree")
    order_mark = "<" if dtype.order in ("|", "=") else dtype.order
    array = np.frombuffer(bytes(data), order_mark + dtype.code)
    return array.reshape(shape, order=order).tolist()


def _plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Numbers and lists only; `budget` holds how many elements may still come."""
    budget[0] -= 1
    if budget[0] < 0 or depth > 4:
        raise _Refused("too many or too deeply nested values")
    if isinstance(value, _Array):
        value = value.values
    if isinstance(value, list | tuple):
        return [_plain(each, budget, depth + 1) for each in value]
    if type(value) not in (int, float):
        raise _Refused("text" if isinstance(value, str) else f"a {type(value).__name__.strip('_')}")
    return value


_GLOBALS: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    **{f"{module}._reconstruct": _reconstruct for module in _MODULES},
    **{f"{module}.scalar": _scalar for module in _MODULES},
    **{f"{module}._frombuffer": _frombuffer for module in _NUMERIC},
}
