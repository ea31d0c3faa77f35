"""More words than fit into the audio are refused, more than people say get a warning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.model_words import LANGUAGES
from aligner_svc.text.speaking_rate import (
    ALWAYS_LETTERS,
    ALWAYS_WORDS,
    MANY_WORDS,
    MAX_LETTERS,
    MAX_WORDS,
    SYLLABLES,
    check_words,
    fit,
    least_seconds,
    rate,
)

RECORD = (260, 1_070, 23.8)
"""Words of Hamlet's soliloquy, their letters, and the seconds in which the fastest talker on record said them."""


def code(words, letters, seconds, language="en", when="refuse"):
    warning = fit(words, letters, seconds, language, when)
    return warning and warning.code


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_languages_limits(language):
    limits = rate(language)
    assert limits.many_words < limits.max_words <= MAX_WORDS
    assert limits.many_words <= MANY_WORDS
    if language in SYLLABLES:
        assert limits.many_words > SYLLABLES[language], "an ordinary reader of words with one syllable gets no warning"
        assert limits.max_words > 2.4 * SYLLABLES[language], "nor is the fastest refused"


def test_the_fastest_speaker_on_record_is_not_refused():
    for language in LANGUAGES:
        assert code(*RECORD, language) == "TRANSCRIPT_DENSE"


def test_a_slow_language_and_a_fast_one():
    assert code(9, 9, 1.0, "zh") == "TRANSCRIPT_DENSE"
    assert code(9, 40, 1.0, "es") is None
    with pytest.raises(InvalidArgumentError, match=r"17 words in 1.0 s of audio: no speaker says more than 16 words a second"):
        fit(17, 17, 1.0, "zh", "refuse")
    assert code(17, 50, 1.0, "es") == "TRANSCRIPT_DENSE"


@pytest.mark.parametrize(("words", "letters"), [(20, 40), (6, 300)])
def test_more_than_a_person_can_say_is_refused(words, letters):
    with pytest.raises(InvalidArgumentError) as caught:
        fit(words, letters, 1.0, "en", "refuse")
    assert (caught.value.reason, caught.value.violations[0].field) == ("TRANSCRIPT_TOO_DENSE", "config.transcript")
    assert code(words, letters, 1.0, when="warn") == "TRANSCRIPT_DENSE"


def test_a_few_words_are_never_too_many():
    assert code(ALWAYS_WORDS, ALWAYS_LETTERS, 0.06) is None


@given(
    words=st.integers(0, 5_000),
    letters=st.integers(0, 20_000),
    seconds=st.floats(0.06, 300),
    language=st.sampled_from(sorted(LANGUAGES)),
)
def test_a_warning_comes_before_a_refusal(words, letters, seconds, language):
    """What is refused would otherwise get a warning, and a few words never do."""
    warned = fit(words, letters, seconds, language, "warn")
    try:
        assert fit(words, letters, seconds, language, "refuse") == warned
    except InvalidArgumentError:
        assert warned is not None
        assert words > MAX_WORDS / 2 * seconds or letters > MAX_LETTERS * seconds
        assert words > ALWAYS_WORDS or letters > ALWAYS_LETTERS


def test_more_words_than_the_server_accepts_are_refused():
    check_words(10, 10)
    with pytest.raises(InvalidArgumentError, match="11 words; at most 10") as caught:
        check_words(11, 10)
    assert caught.value.reason == "TRANSCRIPT_TOO_LONG"


@given(st.integers(0, 100_000), st.integers(0, 500_000), st.sampled_from(sorted(LANGUAGES)))
def test_what_is_shorter_than_the_least_seconds_is_refused_and_nothing_longer(words, letters, language):
    least = least_seconds(words, letters, language)
    assert code(words, letters, least * (1 + 1e-6) + 1e-6, language) in {None, "TRANSCRIPT_DENSE"}
    if least:
        with pytest.raises(InvalidArgumentError):
            fit(words, letters, least * (1 - 1e-6), language, "refuse")
