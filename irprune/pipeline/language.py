"""Pipeline text: parse it into a tree, print the tree as canonical text.

    pipeline = element { "," element } [ "," ] ;
    element  = name [ "{" option { ws option } "}" ] [ "(" pipeline ")" ] ;
    option   = key [ "=" value { "," value } ] ;      (* a bare key means true *)
    value    = number | "true" | "false" | string | bareword ;
    name,key = lower { lower | digit | "-" } ;
    number   = ["-"] digits ["." digits] ["e" ["+"|"-"] digits] ;
    bareword = one or more of [A-Za-z0-9_.*/:@+-], neither number nor boolean ;
    string   = '"' { char | "\\" char } '"' ;

Whitespace is free between tokens and `#` starts a comment. Where an element may stand,
`@file.pipe` stands for the pipeline in that file (a path relative to the file that names it) and
a preset's name for the preset's pipeline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from irprune.errors import PipelineError
from irprune.pipeline.registry import PRESETS
from irprune.tokens import Reader, Token

Value = bool | int | float | str

_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_TOKEN = re.compile(
    r"""(?P<word>[A-Za-z0-9_.*/:@+-]+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<punct>[{}(),=])
      | (?P<end>\Z)""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_NUMBER = re.compile(r"-?[0-9]+(?P<float>(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
_BAREWORD = re.compile(r"[A-Za-z0-9_.*/:@+-]+")
_MAX_DEPTH = 50


@dataclass(frozen=True)
class Where:
    """A spot in a pipeline source, for errors."""

    text: str
    offset: int
    file: str | None = None

    def error(self, reason: str, mend: str | None = None) -> PipelineError:
        return PipelineError(reason, text=self.text, offset=self.offset, file=self.file, mend=mend)


NOWHERE = Where("", 0)


@dataclass(frozen=True)
class Option:
    """`key=value,value`; `spots` tells where each value stands."""

    key: str
    values: tuple[Value, ...]
    where: Where = field(default=NOWHERE, compare=False, repr=False)
    spots: tuple[Where, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Element:
    """`name{options}(body)`; only combinators have a body."""

    name: str
    options: tuple[Option, ...] = ()
    body: Pipeline | None = None
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Pipeline:
    """Elements in the order in which they run."""

    elements: tuple[Element, ...]

    def __str__(self) -> str:
        return print_pipeline(self)


def parse(
    text: str, *, presets: Mapping[str, str] = PRESETS, folder: Path | None = None
) -> Pipeline:
    """The pipeline that `text` spells, presets and files expanded (PipelineError).

    `folder` is where `@file` paths start: the working folder by default.
    """
    return _Parser(text, None, folder or Path(), presets, ()).whole()


def print_pipeline(pipeline: Pipeline) -> str:
    """Canonical text: `parse(print_pipeline(p)) == p`."""
    return ", ".join(print_element(element) for element in pipeline.elements)


def print_element(element: Element) -> str:
    """Canonical text of one element."""
    options = " ".join(_print_option(option) for option in element.options)
    braces = f"{{{options}}}" if options else ""
    body = "" if element.body is None else f"({print_pipeline(element.body)})"
    return f"{element.name}{braces}{body}"


def _print_option(option: Option) -> str:
    if option.values == (True,) and option.values[0] is True:
        return option.key
    return f"{option.key}={','.join(print_value(value) for value in option.values)}"


def print_value(value: Value) -> str:
    """The text of one value; a string stands bare where that reads back as the same string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be written in a pipeline")
    if not isinstance(value, str):
        return repr(value)
    bare = _BAREWORD.fullmatch(value) and not _NUMBER.fullmatch(value)
    if bare and value not in ("true", "false"):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


class _Parser(Reader):
    """Recursive descent over one source text."""

    space, pattern = _SPACE, _TOKEN

    def __init__(
        self,
        text: str,
        file: str | None,
        folder: Path,
        presets: Mapping[str, str],
        open_sources: tuple[str, ...],
        depth: int = 0,
    ) -> None:
        self.file = file
        self.folder = folder
        self.presets = presets
        self.open_sources = open_sources
        self.depth = depth
        super().__init__(text)

    def whole(self) -> Pipeline:
        pipeline = self._pipeline()
        if self.token.kind != "end":
            self.fail("expected `,` or the end of the pipeline")
        return pipeline

    def _pipeline(self) -> Pipeline:
        elements = [*self._element()]
        while self.take(","):
            if self.token.kind == "end" or self.token.text == ")":
                break
            elements.extend(self._element())
        return Pipeline(tuple(elements))

    def _element(self) -> tuple[Element, ...]:
        token = self.token
        if token.kind == "word" and token.text.startswith("@"):
            return self._file()
        name = self._name("a pass name")
        where = self._where(token)
        if name in self.presets:
            self.next()
            return self._nested(f"preset {name}", self.presets[name], self.folder, where)
        self.next()
        options = self._options() if self.token.text == "{" else ()
        body = self._body() if self.token.text == "(" else None
        return (Element(name, options, body, where),)

    def _body(self) -> Pipeline:
        if self.depth == _MAX_DEPTH:
            self.fail(f"the pipeline nests deeper than {_MAX_DEPTH}")
        self.depth += 1
        self.next()
        body = self._pipeline()
        self.expect(")")
        self.depth -= 1
        return body

    def _file(self) -> tuple[Element, ...]:
        token = self.token
        where = self._where(token)
        self.next()
        name = token.text[1:]
        if not name and self.token.kind == "string" and self.token.start == token.end:
            name = str(self._value())
        if not name:
            raise where.error("expected a file after `@`")
        path = self.folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise where.error(f"cannot read pipeline file {path}: {reason}") from error
        return self._nested(str(path), text, path.parent, where)

    def _nested(self, source: str, text: str, folder: Path, where: Where) -> tuple[Element, ...]:
        if self.token.text in ("{", "("):
            self.fail(f"{source} takes neither options nor a body", "write its passes out")
        if source in self.open_sources:
            raise where.error(f"{source} includes itself")
        if self.depth == _MAX_DEPTH:
            raise where.error(f"the pipeline nests deeper than {_MAX_DEPTH}")
        opened = (*self.open_sources, source)
        nested = _Parser(text, source, folder, self.presets, opened, self.depth + 1)
        return nested.whole().elements

    def _options(self) -> tuple[Option, ...]:
        self.next()
        options: dict[str, Option] = {}
        while not options or self.token.text != "}":
            token = self.token
            key = self._name("an option name" if not options else "an option name or `}`")
            if key in options:
                self.fail(f"option `{key}` is given twice")
            if options and self.text[token.start - 1] in '"':
                self.fail("expected a space between options")
            self.next()
            values: list[Value] = [True]
            spots = [self._where(token)]
            if self.take("="):
                spots = [self._where(self.token)]
                values = [self._value()]
                while self.take(","):
                    spots.append(self._where(self.token))
                    values.append(self._value())
            options[key] = Option(key, tuple(values), self._where(token), tuple(spots))
        self.next()
        return tuple(options.values())

    def _value(self) -> Value:
        token = self.token
        if token.kind == "string":
            self.next()
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind != "word":
            self.fail("expected a value")
        if token.text in ("true", "false"):
            self.next()
            return token.text == "true"
        number = _NUMBER.fullmatch(token.text)
        if number is None:
            self.next()
            return token.text
        if len(token.text) > 400 or not math.isfinite(float(token.text)):
            self.fail("the number is too large")
        self.next()
        return float(token.text) if number["float"] else int(token.text)

    def _name(self, what: str) -> str:
        if self.token.kind != "word":
            self.fail(f"expected {what}")
        if not _NAME.fullmatch(self.token.text):
            mend = "names are lower-case letters, digits and `-`, a letter first"
            self.fail(f"expected {what}, got `{self.token.text}`", mend)
        return self.token.text

    def error(self, offset: int, reason: str, mend: str | None = None) -> PipelineError:
        return Where(self.text, offset, self.file).error(reason, mend)

    def stray(self, char: str) -> str:
        return "the string never ends" if char == '"' else super().stray(char)

    def _where(self, token: Token) -> Where:
        return Where(self.text, token.start, self.file)
