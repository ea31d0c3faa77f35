"""A Python that splits text wrongly does not serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from aligner_svc.domain import Token
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.self_test import check_split
from aligner_svc.text import tokenise
from aligner_svc.text.model_words import split

Split = Callable[[str, str], Sequence[Token]]


@pytest.mark.parametrize("right", [tokenise, split])
def test_both_engines_split_it_right(right: Split) -> None:
    check_split(right)


def test_a_word_that_lost_a_letter_is_one_clear_line() -> None:
    """As Python 3.11.2 did to possessive quantifiers: "began" came back as "bega"."""

    def cut(text: str, language: str) -> list[Token]:
        return [replace(token, text="bega") if token.text == "began" else token for token in tokenise(text, language)]

    with pytest.raises(
        EngineStartError, match=r"^Python 3\.\d+\.\d+ splits text wrongly .*They bega it.* another release of 3\.11$"
    ):
        check_split(cut)
