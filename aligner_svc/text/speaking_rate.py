"""How much can be said in a second: which transcripts are refused as too long for their audio, and which get a warning.

These are no quotas: a transcript that does not fit its audio is the wrong one, or an attempt to have a long one
processed for the price of a short clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from aligner_svc.domain import Warning
from aligner_svc.errors import InvalidArgumentError

WhenDense = Literal["refuse", "warn"]

SYLLABLES: Mapping[str, float] = {
    "de": 5.97, "en": 6.19, "es": 7.82, "fr": 7.18, "it": 6.99, "ja": 7.84, "zh": 5.18,
}  # fmt: skip
"""Syllables a second (in Japanese, morae) in fluent reading without pauses, the mean of a language's speakers.

Pellegrino, Coupe and Marsico 2011, "A cross-language perspective on speech information rate", Language 87(3), table 2:
https://doi.org/10.1353/lan.2011.0057. Other languages get the highest value.
"""
_RECORD = 3.0
"""Multiple of the mean that no speaker reaches: the fastest on record said 260 English words in 23.8 s, 10.9 a second, some
14 syllables and 2.3 times the mean: https://www.guinnessworldrecords.com/news/2018/1/can-you-recite-hamlets-to-be-or-not-to-be-soliloquy-quicker-than-the-fastest-t-509944
"""
_HURRIED = 1.6
"""Multiple of the mean that hardly any speaker sustains: 10 English words a second, near the record, if each has one syllable.
A transcript that gets a warning for it is hardly ever right."""
MAX_WORDS, MANY_WORDS = 20.0, 10.0
"""Words a second in any language: the maximum, and the number that gets a warning."""
MAX_LETTERS = 50.0
"""Letters a second in any language: more than 20 short words have. Ideographs and syllable letters (Hangul, kana) are fewer."""
ALWAYS_WORDS, ALWAYS_LETTERS = 5, 250
"""Accepted however short the clip: its edges may be cut, and the mean length of a word says little about a few."""


@dataclass(frozen=True, slots=True)
class SpeakingRate:
    """Words and letters a second: `max_*` are refused above, `many_words` get a warning."""

    max_words: float = MAX_WORDS
    many_words: float = MANY_WORDS
    max_letters: float = MAX_LETTERS


_ANY_LANGUAGE: Final = SpeakingRate()


def rate(language: str) -> SpeakingRate:
    """The limits of a language, by its primary subtag. A word has at least one syllable; an ideograph is a word."""
    syllables = SYLLABLES.get(language, max(SYLLABLES.values()))
    return SpeakingRate(min(MAX_WORDS, round(_RECORD * syllables)), min(MANY_WORDS, round(_HURRIED * syllables)))


def check_rate(words: int, letters: int, seconds: float, limits: SpeakingRate = _ANY_LANGUAGE) -> None:
    """Raise InvalidArgumentError (TRANSCRIPT_TOO_DENSE) for more words or letters than fit into `seconds` of audio."""
    for count, always, fastest, unit in (
        (words, ALWAYS_WORDS, limits.max_words, "words"),
        (letters, ALWAYS_LETTERS, limits.max_letters, "letters"),
    ):
        if count > max(always, fastest * seconds):
            message = f"{count} {unit} in {seconds:.1f} s of audio: no speaker says more than {fastest:g} {unit} a second"
            raise InvalidArgumentError("TRANSCRIPT_TOO_DENSE", message, field="config.transcript")


def least_seconds(words: int, letters: int, language: str) -> float:
    """Seconds of audio below which `check_rate` certainly refuses so many words and letters in a language; 0 for a few."""
    limits = rate(language)
    least = max(
        words / limits.max_words if words > ALWAYS_WORDS else 0.0,
        letters / limits.max_letters if letters > ALWAYS_LETTERS else 0.0,
    )
    return least * (1 - 1e-9)  # whichever way a quotient is rounded


def check_words(words: int, max_words: int) -> None:
    """Raise InvalidArgumentError (TRANSCRIPT_TOO_LONG) for more words than the server accepts, however long the audio."""
    if words > max_words:
        message = f"the transcript has {words} words; at most {max_words} are accepted"
        raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")


def dense_warning(words: int, seconds: float, limits: SpeakingRate = _ANY_LANGUAGE) -> Warning | None:
    """TRANSCRIPT_DENSE for more words a second than people speak."""
    return _dense(words, ALWAYS_WORDS, limits.many_words, "words", seconds)


def fit(words: int, letters: int, seconds: float, language: str, when_dense: WhenDense) -> Warning | None:
    """The warning for a transcript that is long for its audio; None if it fits.

    Raises InvalidArgumentError (TRANSCRIPT_TOO_DENSE) if it is impossibly long and `when_dense` is "refuse".
    """
    limits = rate(language)
    if when_dense == "refuse":
        check_rate(words, letters, seconds, limits)
    return dense_warning(words, seconds, limits) or _dense(letters, ALWAYS_LETTERS, limits.max_letters, "letters", seconds)


def _dense(count: int, always: int, fastest: float, unit: str, seconds: float) -> Warning | None:
    if count <= max(always, fastest * seconds):
        return None
    return Warning("TRANSCRIPT_DENSE", f"{count / seconds:.0f} {unit} a second are more than people speak")
