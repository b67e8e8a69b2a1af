"""Archives of arrays: what is read, and that damage is named."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.format import MAGIC_PREFIX

from irprune.archives import read_arrays
from irprune.errors import IrpruneError


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [None, ("b", "none")])
def test_arrays_are_read_by_name(tmp_path: Path, save: type, names: tuple[str, ...] | None) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.float16(3), "c": np.zeros((0, 2), ">i2")}
    save(tmp_path / "s.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive:
        archive.writestr("about.txt", "no array")
    found = read_arrays(tmp_path / "s.npz", names)
    assert list(found) == [name for name in arrays if names is None or name in names]
    for name, array in found.items():
        assert array.dtype == np.asarray(arrays[name]).dtype
        assert np.array_equal(array, arrays[name])


def _headed(header: str, version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    return MAGIC_PREFIX + bytes([version, 0]) + struct.pack("<H", len(text)) + text


def _shaped(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (_headed(_shaped("(10000000000000, 8)")), "holds 0 bytes where its header says"),
        (_headed(_shaped(f"({10**24},)")), "holds 0 bytes where its header says"),
        (_headed(_shaped("(-1, 8)")), "holds 0 bytes where its header says"),
        (_headed(_shaped("(2,)")) + b"12345678more", "holds 12 bytes where its header says"),
        (_headed(_shaped("(0,)", "()")), "tuple index out of range"),
        (_headed(_shaped("(0,)", "'|O'")), "Object arrays cannot be loaded"),
        (_headed("-" * 9000 + "1"), "(MemoryError|too complex|recursion)"),
        (_headed("{'descr': '<f4', ("), "EOF in multi-line statement"),
        (_headed(_shaped("(0,)", "'<04'")), "leading zeros"),
        (_headed("{[]: 1}"), "unhashable"),
        (_headed(_shaped("(0,)"), version=9), "format version"),
        (b"no array", "magic string"),
    ],
)
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, member: bytes, reason: str) -> None:
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(IrpruneError, match=f"usable .npz archive of plain arrays: .*{reason}") as e:
        read_arrays(path)
    assert e.value.file == path


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        (10, 97, "compression method is not supported"),
        (8, 1, "encrypted"),
        (20, 0, "Error -3|Bad CRC|EOFError|bytes where"),
    ],
)
def test_damaged_directories_are_refused(
    tmp_path: Path, place: int, number: int, reason: str
) -> None:
    path = tmp_path / "s.npz"
    np.savez_compressed(path, x=np.arange(9))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + place] = number
    path.write_bytes(whole)
    with pytest.raises(IrpruneError, match=f"usable .npz archive of plain arrays: .*({reason})"):
        read_arrays(path)


def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name, reason in (
        ("one.npz", "a single array without a name"),
        ("text.npz", "not a zip file"),
        ("none.npz", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(IrpruneError, match=reason):
            read_arrays(tmp_path / name)
