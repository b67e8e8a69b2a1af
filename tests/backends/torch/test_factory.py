"""A user's own data set that is not what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from irprune.backends.torch.training.data import open_data
from irprune.backends.torch.training.data.source import fingerprint
from irprune.errors import IrpruneError


class Mine:
    """Some examples of three numbers, in two classes."""

    def __init__(self, **changes: Any) -> None:
        vars(self).update({"classes": 2, "shape": (3,), "count": 4, "hash": None} | changes)

    @property
    def broken(self) -> int:
        raise RuntimeError("its own trouble")

    def size(self, split: str) -> Any:
        return self.__dict__["count"]

    def content_hash(self) -> Any:
        return self.__dict__["hash"]

    def batches(self, split: str, draws: Any, device: torch.device) -> Any:
        yield from ()


class Failing(Mine):
    classes = Mine.broken


def mine(path: Any) -> Mine:
    return Failing() if path is None else Mine(**path)


def test_modules_are_found_in_the_folder_that_is_named(tmp_path: Path) -> None:
    """Also those that the factory imports when it is called."""
    (tmp_path / "some_facts.py").write_text(
        "import numpy as np\ndef make(path):\n    from more_facts import y\n"
        "    x = np.zeros((4, 3), np.float32)\n    return x, y, x, y\n"
    )
    (tmp_path / "more_facts.py").write_text("import numpy as np\ny = np.arange(4) % 2\n")
    before = list(sys.path)
    with pytest.raises(IrpruneError, match="no module 'some_facts'; put it beside the config"):
        open_data("some_facts:make", home=tmp_path / "elsewhere")
    assert open_data("some_facts:make", home=tmp_path).classes == 2
    assert sys.path == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "the factory failed: .*its own trouble"),
        ({"classes": None}, "classes is None, no whole number from 0; mend the Data"),
        ({"classes": 2.0}, "classes is 2.0"),
        ({"shape": 6}, "the data failed: TypeError"),
        ({"shape": ("3",)}, "a length in shape is '3'"),
        ({"count": "6"}, "the size of train is '6'"),
        ({"count": -1}, "the size of train is -1"),
        ({"hash": b"bytes"}, "content_hash is b'bytes', no text; return a text, or None"),
    ],
)
def test_a_data_that_is_not_what_it_says_is_named(changes: Any, message: str) -> None:
    with pytest.raises(IrpruneError, match=f"^{__name__}:mine: {message}"):
        fingerprint(open_data(f"{__name__}:mine", changes))


def test_a_data_may_tell_its_content() -> None:
    assert fingerprint(open_data(f"{__name__}:mine", {"hash": "abc"}))["content"] == "abc"
