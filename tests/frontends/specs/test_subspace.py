"""Subspace files: every form, and every error at its place."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError, SpecError
from irprune.frontends.specs.document import MOST_BYTES, Text
from irprune.frontends.specs.pickled import load
from irprune.frontends.specs.subspace import Subspace, parse_subspace, read_subspace

CONFIGS = [[0.3, 0, 0.3, 0], [0.5, 0, 0.3, 0]]
WANTED = ((0.3, 0.0, 0.3, 0.0), (0.5, 0.0, 0.3, 0.0))
FIGURE = """''' An example of a promising subspace specification that contains two
configurations. '''
configs=[[0.3, 0, 0.3, 0], [0.5, 0, 0.3, 0]]
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wootz.py", FIGURE),
        ("bare.txt", "[[0.3, 0, 0.3, 0], [0.5, 0, 0.3, 0]]"),
        ("lines", "# one per line\n0.3, 0, 0.3, 0\n[0.5, 0, 0.3, 0]\n"),
        ("a.toml", f"configs = {CONFIGS}"),
        ("a.json", f'{{"rates": "removed", "configs": {CONFIGS}}}'),
        ("b.json", f"{CONFIGS}"),
    ],
)
def test_text_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_subspace(tmp_path / name, modules=4)
    assert found.removed == WANTED
    assert found.kept[0] == (0.7, 1.0, 0.7, 1.0)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        CONFIGS,
        tuple(map(tuple, CONFIGS)),
        np.array(CONFIGS),
        np.asfortranarray(np.array(CONFIGS)),
        np.array(CONFIGS, dtype=">f8"),
        [np.array(config) for config in CONFIGS],
        [[np.float64(rate) for rate in config] for config in CONFIGS],
    ],
)
def test_pickles(tmp_path: Path, value: Any, protocol: int) -> None:
    for name in ("a.pkl", "no_suffix"):
        (tmp_path / name).write_bytes(pickle.dumps(value, protocol))
        assert read_subspace(tmp_path / name).removed == WANTED


def test_a_pickle_of_python_2_with_numpy() -> None:
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + np.array([0.5, 0.25], np.float32).tobytes() + b"tb."
    )
    assert load(data) == [[0.5, 0.25]]


def test_what_python_would_warn_of_is_not_printed(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(SpecError, match="a rate must be a number"):
        parse_subspace(Text("[[0.3, 1or 2]]"))
    assert parse_subspace(Text("'\\d'\n[[0.3, 0]]")).removed == ((0.3, 0.0),)
    assert not recwarn.list


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


class _Evaluates:
    def __reduce__(self) -> Any:
        return eval, ("open('pwned', 'w')",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (_Runs(), "system"),
        (_Evaluates(), "eval"),
        (np.array([_Runs()], dtype=object), "objects"),
        ([[0.1], [_Runs()]], "system"),
        (OrderedDict(), "OrderedDict"),
        ({1: 2}, "dict"),
        ("0.3", "text"),
        ([[True]], "bool"),
        ([[None]], "NoneType"),
        (np.zeros(1, dtype=[("a", "f8")]), "dtype"),
        (1j, "complex"),
    ],
)
def test_other_pickles_are_refused_by_name(
    value: Any, named: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(IrpruneError, match=named) as caught:
        read_subspace("a.pkl")
    assert "a.pkl: this pickle holds" in str(caught.value)
    assert [each.name for each in Path().iterdir()] == ["a.pkl"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04(\x8c\x05posix\x8c\x06system\x93o.",  # OBJ
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02cnumpy\ndtype\n}b.",  # a state for a function
        b"\x80\x02Pexternal\n.",
        b"\x80\x02\x82\x01.",  # extension registry
    ],
)
def test_handmade_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(IrpruneError, match="this pickle holds"):
        load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x96" + (1 << 60).to_bytes(8, "little") + b".",  # BYTEARRAY8
        b"\x80\x04]r\xff\xff\xff\x7f.",  # LONG_BINPUT: a huge memo index is just a key
        b"\x80\x04\x8b\xff\xff\xff\x7f.",  # LONG4
        b"(lp0\n",
        b"",
        b".",
        b"\x80\x02]a.",
    ],
)
def test_huge_and_broken_pickles_end_soon(data: bytes) -> None:
    try:
        assert load(data) == []
    except IrpruneError as error:
        assert "pickle" in str(error)


def test_a_bomb_of_references_is_refused() -> None:
    levels = b"".join(b"](" + (b"h" + bytes([i])) * 200 + b"e\x94" for i in range(3))
    with pytest.raises(IrpruneError, match="too many"):
        load(b"\x80\x04]\x94" + levels + b".")
    with pytest.raises(IrpruneError, match="too deeply"):
        load(b"\x80\x04]\x94h\x00a.")


def test_an_array_must_have_the_bytes_of_its_shape() -> None:
    data = pickle.dumps(np.zeros((2, 2)), 2).replace(b"K\x02K\x02\x86", b"J\0\0\0\x7fK\x02\x86")
    with pytest.raises(IrpruneError, match="disagree"):
        load(data)


def test_the_file_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"." * (MOST_BYTES + 1))
    with pytest.raises(IrpruneError, match="too large"):
        read_subspace(tmp_path / "a.pkl")
    with pytest.raises(IrpruneError, match="cannot read"):
        read_subspace(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("form", "text", "place", "reason"),
    [
        ("text", "configs=[[0.3,0],\n [0.5,1.0]]", (2, 7), "outside [0, 1)"),
        ("text", "'é'; [[0.3, -0.1]]", (1, 13), "outside [0, 1)"),
        ("text", "[[0.1],\n [0.1, 0.2]]", (2, 2), "2 rates, the first one has 1"),
        ("text", "[[0.1], 3]", (1, 9), "no list of rates"),
        ("text", "[[0.1,", (1, 2), "never closed"),
        ("text", "[['0.1']]", (1, 3), "must be a number"),
        ("text", "[[True]]", (1, 3), "must be a number"),
        ("text", "__import__('os')", (1, 1), "nothing is executed"),
        ("text", "import os", (1, 1), "nothing is executed"),
        ("text", "[[0.1]]\nother = [[0.1]]", (2, 1), "expected `configs"),
        ("text", "configs=[[0.1]]\nconfigs=[[0.2]]", (2, 1), "twice"),
        ("text", "", (1, 1), "at least one"),
        ("toml", "configs = [\n  [0.3, 0],\n  [2, 0],\n]", (3, 4), "outside [0, 1)"),
        ("toml", 'modules = ["a", "b"]\nconfigs = [[0.3]]', (2, 12), "1 rates, the network has 2"),
        ("toml", 'modules = ["a", "a"]\nconfigs = [[0.3]]', (1, 11), "different names"),
        ("toml", 'rates = "kept"\nconfigs = [[0.3]]', (1, 9), "fractions removed"),
        ("toml", "configs = [[nan]]", (1, 13), "outside [0, 1)"),
        ("toml", "confgs = [[0.1]]", (1, 10), "did you mean `configs`"),
        ("toml", "configs = ", (1, 11), "not TOML"),
        ("json", '{"configs":\n [[0.1],\n "x"]}', (3, 2), "no list of rates"),
        ("json", "[[0.1],\n [1e999]]", (2, 3), "outside [0, 1)"),
        ("json", "[[0.1],\n 2", (2, 3), "not JSON"),
        ("json", "3", (1, 1), "table of keys"),
        ("json", "{}", (1, 1), "`configs` is missing"),
    ],
)
def test_errors_point_at_the_spot(
    form: str, text: str, place: tuple[int, int], reason: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse_subspace(Text(text, "s"), form)
    message = str(caught.value)
    assert (caught.value.line, caught.value.column) == place
    assert message.startswith(f"s:{place[0]}:{place[1]}: ")
    assert reason in message
    assert message.splitlines()[-1] == " " * (place[1] + 1) + "^"


def test_the_length_is_the_networks() -> None:
    with pytest.raises(SpecError, match="4 rates, the network has 3"):
        parse_subspace(Text(FIGURE), modules=3)
    with pytest.raises(SpecError, match="4 rates, the network has 2"):
        parse_subspace(Text(FIGURE), names=["a", "b"])


def test_repeats_are_told_and_left_out() -> None:
    found = parse_subspace(Text("[[0.1, 0], [0.2, 0], [0.1, 0.0]]"))
    assert found.removed == ((0.1, 0.0), (0.2, 0.0))
    assert found.repeats == ((2, 0),)


RATE = st.floats(0, 1, exclude_max=True)
SPACES = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(RATE, min_size=n, max_size=n), min_size=1, max_size=5)
)


@pytest.mark.parametrize("suffix", ["toml", "json"])
@given(configs=SPACES, origin=st.text())
def test_what_is_written_reads_back(
    suffix: str, configs: list[list[float]], origin: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / f"s.{suffix}"
    names = tuple(f"m{i}" for i in range(len(configs[0])))
    space = Subspace(tuple(dict.fromkeys(map(tuple, configs))), names, origin)
    space.save(path)
    assert read_subspace(path, names=names) == space


PIECES = st.sampled_from(
    [*"[](){}=,.:#'\"\n\\- ", "0.3", "configs", "[[", "]]", "1e9", "'''", '"""', "min", "é", "\x00"]
)


@pytest.mark.parametrize("form", ["text", "toml", "json"])
@given(pieces=st.lists(PIECES, max_size=20) | st.lists(st.characters(), max_size=20))
def test_any_text_is_read_or_refused(form: str, pieces: Sequence[str]) -> None:
    try:
        parse_subspace(Text("".join(pieces)), form)
    except IrpruneError as error:
        assert str(error)


@given(st.binary(max_size=60), st.integers(0, 5), st.integers(0, 400))
def test_any_bytes_are_read_or_refused(junk: bytes, protocol: int, where: int) -> None:
    good = pickle.dumps(np.array(CONFIGS), protocol)
    for data in (junk, good[:where] + junk, good[:where] + junk + good[where + len(junk) :]):
        try:
            load(data)
        except IrpruneError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text", ["[" * 5000, "-" * 100000 + "1", "{" * 5000, "[[" + "-" * 90 + "1]]"]
)
@pytest.mark.parametrize("form", ["text", "toml", "json"])
def test_deep_nesting_is_refused(form: str, text: str) -> None:
    for each in (text, f"configs={text}"):
        with pytest.raises(IrpruneError):
            parse_subspace(Text(each), form)
