"""Language tags are BCP-47 in any case, with hyphens or underscores."""

from __future__ import annotations

import pytest

from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import normalise_language


@pytest.mark.parametrize(
    ("tag", "language"),
    [("en", "en"), ("en-GB", "en"), ("EN_us", "en"), ("zh-Hant-TW", "zh"), ("yue", "yue"), ("pt-BR", "pt"), ("de-CH-1996", "de")],
)
def test_primary_subtag(tag: str, language: str) -> None:
    assert normalise_language(tag) == language


@pytest.mark.parametrize(
    "tag",
    [
        "",
        " ",
        "en ",
        " en",
        "e",
        "english-is-fine-but-this-is-far-too-long",
        "en--GB",
        "en-",
        "-en",
        "12",
        "en GB",
        "en\n",
        "é",
        "abcd",
        "en-toolongsubtag",
        "\x00",
        "en\u2010GB",
    ],
)
def test_malformed(tag: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        normalise_language(tag)
    assert caught.value.reason == "LANGUAGE_INVALID"
    assert [violation.field for violation in caught.value.violations] == ["config.language"]
