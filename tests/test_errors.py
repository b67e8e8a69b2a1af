"""Errors: one message with the place, the reason and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from irprune.errors import CheckFailed, IrpruneError, PassFailed, PipelineError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (IrpruneError("not a protobuf"), "not a protobuf"),
        (IrpruneError("not a protobuf", file="a.onnx"), "a.onnx: not a protobuf"),
        (
            IrpruneError(
                "has no shape", file=Path("a.onnx"), node="c1 (Conv)", mend="give --shape"
            ),
            "a.onnx: c1 (Conv): has no shape; give --shape",
        ),
    ],
)
def test_message_joins_place_reason_and_mend(error: IrpruneError, message: str) -> None:
    assert str(error) == message


def test_exit_codes() -> None:
    assert IrpruneError("").exit_code == 2
    assert PipelineError("", text="", offset=0).exit_code == 2
    assert CheckFailed("").exit_code == 1
    assert PassFailed("").exit_code == 1


def test_caret_points_into_the_right_line() -> None:
    error = PipelineError("bad", text="one,\n\ttwo, three", offset=11, mend="fix it")
    assert str(error) == "bad; fix it\n  \ttwo, three\n  \t     ^"
