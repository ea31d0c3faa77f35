"""Any transcript and any language tag: words that stand where they say, in order, and no exception but a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import atheris

with atheris.instrument_imports(include=["aligner_svc.text", "aligner_client.markup", "aligner_svc.text.model_words"]):
    from aligner_client.markup import Markup
    from aligner_svc.text import normalise_language, tokenise
    from aligner_svc.text.model_words import split
    from aligner_svc.text.transcript import with_marks

from aligner_svc.domain import Token
from aligner_svc.errors import InvalidArgumentError
from tests.fuzz.running import run
from tests.kit.recordings import TRANSCRIPT

# Japanese is cut by a library with a model of its own, which takes 0.2 ms a character.
LANGUAGES: Final = ("zh", "en", "yue", "fr", "de", "ko", "ru")
LONGEST: Final = 2000


def one(data: bytes) -> None:
    """The first byte chooses a language, the others are UTF-8, or nearly."""
    language, text = LANGUAGES[(data[0] if data else 0) % len(LANGUAGES)], data[1:].decode("utf-8", "replace")[:LONGEST]
    check(tokenise(text, "en"), text)
    check(split(text, language), text)
    check_marked_up(text)
    check_tag(text)


def check(tokens: Sequence[Token], text: str) -> None:
    end = 0
    for token in tokens:
        assert token.text == text[token.char_start : token.char_end]
        assert token.char_start < token.char_end
        assert token.char_start >= end
        end = token.char_end


def check_marked_up(text: str) -> None:
    markup = Markup.of(text)
    end = 0
    for token in with_marks(markup, tokenise(markup.text, "en")):
        assert end <= token.char_start < token.char_end <= len(text)
        assert token.text
        end = token.char_end


def check_tag(text: str) -> None:
    try:
        tag = normalise_language(text)
    except InvalidArgumentError as error:
        refused = error
    else:
        assert tag == tag.lower()
        assert 2 <= len(tag) <= 8
        return
    assert refused.reason == "LANGUAGE_INVALID"
    assert text not in refused.message or len(text) < 12


def seeds() -> Iterable[bytes]:
    texts = (
        TRANSCRIPT,
        "Dr. Smith paid $1,234.56 on 3/4/2024 at 5:30 p.m. \u2013 20 \u00b0C, U.S.-based, C++ & A+, '90s, 2\u00bd",
        "<v Mary>Don&#39;t</v> MARY: [laughter] (sighs) ten\u00b2 {\\k20} - >> \u266a Q. A. 1 000 000",
        "1\n00:00:00,500 --> 00:00:02,000\na",
        "https://example.com/a?b=c#d, me@example.com, @handle #tag 1st 22nd XIV IV. 1990s 007 1e9 0x1F 3.14159 -5 +7 1,00,000",
        "\u200b\u00ad\ufeff\u202e\u2066a\u0300\u0301b\u200dc \N{GRINNING FACE}\u200d\N{THUMBS UP SIGN}\U0001f3fd",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \uc548\ub155\ud558",
        "\u043f\u0440\u0438\u0432\u0435\u0442, gr\u00f6\u00dfer \u2164 \u2460 \u00bd",
        "12345678901234567890123456789012345678901234567890 1/0 0/0 1//2 $$$ 1.2.3.4 --- ... ' '' \" << >> (s) w/ o'clock",
        "en-GB", "zh_Hans_CN", "x-private", "",
    )  # fmt: skip
    return [bytes([number % 7]) + text.encode() for number, text in enumerate(texts)]


if __name__ == "__main__":
    run(one, seeds)
