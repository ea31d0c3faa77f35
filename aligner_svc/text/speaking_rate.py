"""How much can be said in a second: what is refused as more than the audio could hold, and what is only warned about.

Nothing here is a limit of the service's. A transcript that does not fit its audio is the wrong one, or an attempt to have
a long one worked on for the price of a short clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aligner_svc.domain import Warning
from aligner_svc.errors import InvalidArgumentError

WhenDense = Literal["refuse", "warn"]

SYLLABLES: Mapping[str, float] = {
    "de": 5.97, "en": 6.19, "es": 7.82, "fr": 7.18, "it": 6.99, "ja": 7.84, "zh": 5.18,
}  # fmt: skip
"""Syllables a second (in Japanese, morae) in fluent reading, pauses left out, the mean of a language's speakers.

Pellegrino, Coupe and Marsico 2011, "A cross-language perspective on speech information rate", Language 87(3), table 2:
https://doi.org/10.1353/lan.2011.0057. A language that is not in it gets the highest.
"""
_RECORD = 3.0
"""Times the mean that nobody reaches: the fastest talker on record said 260 English words in 23.8 s, 10.9 a second, some 14
syllables and 2.3 times the mean: https://www.guinnessworldrecords.com/news/2018/1/can-you-recite-hamlets-to-be-or-not-to-be-soliloquy-quicker-than-the-fastest-t-509944
"""
_HURRIED = 1.6
"""Times the mean that hardly anybody keeps up: 10 English words a second, near the record, if each has one syllable. Chosen so
that what is remarked on is hardly ever right; nobody is turned away for it."""
MAX_WORDS, MANY_WORDS = 20.0, 10.0
"""Words a second, in any language, the most that is taken and the most that is not remarked on."""
MAX_LETTERS = 50.0
"""Letters a second, in any language: more than 20 short words have. Ideographs and syllable letters (Hangul, kana) are fewer."""
ALWAYS_WORDS, ALWAYS_LETTERS = 5, 250
"""Never too many, however short the clip: its edges may be cut, and a word's length is one in a few only in the mean."""


@dataclass(frozen=True, slots=True)
class SpeakingRate:
    """A second of speech holds at most `max_words` and `max_letters`; more than `many_words` are seldom."""

    max_words: float = MAX_WORDS
    many_words: float = MANY_WORDS
    max_letters: float = MAX_LETTERS


def rate(language: str) -> SpeakingRate:
    """What a language's speakers can do, by its primary subtag. A word has a syllable at least; an ideograph is a word."""
    syllables = SYLLABLES.get(language, max(SYLLABLES.values()))
    return SpeakingRate(min(MAX_WORDS, round(_RECORD * syllables)), min(MANY_WORDS, round(_HURRIED * syllables)))


def check_rate(words: int, letters: int, seconds: float, limits: SpeakingRate | None = None) -> None:
    """Raises InvalidArgumentError (TRANSCRIPT_TOO_DENSE) for more words, or longer ones, than the audio could hold."""
    limits = limits or SpeakingRate()
    for count, always, fastest, what in (
        (words, ALWAYS_WORDS, limits.max_words, "words"),
        (letters, ALWAYS_LETTERS, limits.max_letters, "letters"),
    ):
        if count > max(always, fastest * seconds):
            message = f"{count} {what} in {seconds:.1f} s of audio: nobody speaks more than {fastest:g} {what} a second"
            raise InvalidArgumentError("TRANSCRIPT_TOO_DENSE", message, field="config.transcript")


def check_words(words: int, most: int) -> None:
    """Raises InvalidArgumentError (TRANSCRIPT_TOO_LONG) for more words than a server takes, however long the audio."""
    if words > most:
        message = f"the transcript has {words} words; at most {most} are accepted"
        raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")


def dense_warning(words: int, seconds: float, limits: SpeakingRate | None = None) -> Warning | None:
    """TRANSCRIPT_DENSE for more words a second than people speak."""
    if words <= max(ALWAYS_WORDS, (limits or SpeakingRate()).many_words * seconds):
        return None
    return Warning("TRANSCRIPT_DENSE", f"{words / seconds:.0f} words a second are more than people speak")


def fit(words: int, letters: int, seconds: float, language: str, when_dense: WhenDense) -> Warning | None:
    """Does the transcript fit its audio? What the answer should say of it.

    Raises InvalidArgumentError (TRANSCRIPT_TOO_DENSE) where it cannot and `when_dense` is "refuse".
    """
    limits = rate(language)
    if when_dense == "refuse":
        check_rate(words, letters, seconds, limits)
    return dense_warning(words, seconds, limits) or _long_words(letters, seconds, limits)


def _long_words(letters: int, seconds: float, limits: SpeakingRate) -> Warning | None:
    if letters <= max(ALWAYS_LETTERS, limits.max_letters * seconds):
        return None
    return Warning("TRANSCRIPT_DENSE", f"{letters / seconds:.0f} letters a second are more than people speak")
