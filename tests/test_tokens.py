"""The reader of tokens: one ahead, whatever stands between, and an error for every other text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import SpecError
from irprune.tokens import Reader


class Words(Reader):
    """Words and commas; stars stand between them."""

    space = re.compile(r"\**")
    pattern = re.compile(r"(?P<word>[a-z]+)|(?P<punct>,)|(?P<end>\Z)")

    def error(self, offset: int, reason: str, mend: str | None = None) -> SpecError:
        return SpecError(reason, text=self.text, offset=offset, mend=mend)


def test_tokens_come_one_after_the_other() -> None:
    reader = Words("**ab*,c*")
    first = reader.next()
    assert (first.kind, first.text, first.start, first.end) == ("word", "ab", 2, 4)
    assert not reader.take(":")
    assert reader.take(",") and not reader.take(",")
    with pytest.raises(SpecError, match="expected `,`") as caught:
        reader.expect(",")
    assert caught.value.column == 7
    assert reader.next().text == "c"
    assert (reader.token.kind, reader.token.start) == ("end", 8)
    assert reader.next().kind == reader.token.kind == "end"


def test_words_are_no_punctuation() -> None:
    assert not Words("word").take("word")


@given(st.text("ab,* \n", max_size=12))
def test_every_text_is_read_or_refused_at_the_stray(text: str) -> None:
    stray = re.search(r"[ \n]", text)
    read = []
    try:
        reader = Words(text)
        while reader.token.kind != "end":
            read.append(reader.next().text)
    except SpecError as error:
        assert stray is not None
        assert (error.offset, error.reason) == (stray.start(), f"unexpected `{stray[0]}`")
    else:
        assert stray is None
        assert "".join(read) == text.replace("*", "")
