"""What is wrong with a recording and its transcript: what is refused, and what is warned of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from aligner_svc.audio.level import SILENT
from aligner_svc.domain import Token, Warning
from aligner_svc.errors import InvalidArgumentError, MismatchError

LETTERS_A_WORD: Final = 5
"""Average word length, used to estimate word counts."""
_FAINT: Final = 1e-4
"""Peak (1.0 is full scale, so -80 dBFS) below which audio in which no word was found is silence: the last bits of 16."""

_MIN_SECONDS = 0.06
"""The shortest words ("a", "I") last this long in fluent speech; less audio holds none."""


def size(spoken: Sequence[Token]) -> tuple[int, int]:
    """Words and letters that are said."""
    return sum(len(token.spoken) for token in spoken), sum(len(word) for token in spoken for word in token.spoken)


def check_seconds(seconds: float) -> None:
    if seconds < _MIN_SECONDS:
        message = f"the audio lasts {seconds * 1000:.0f} ms; a word needs {_MIN_SECONDS * 1000:.0f} ms at least"
        raise InvalidArgumentError("AUDIO_TOO_SHORT", message, field="audio")


def check_score(score: float, least: float) -> None:
    if score < least:
        message = f"transcript and audio match with a score of {score:.2f}; config.min_match_score asks for {least:.2f}"
        raise MismatchError("MATCH_SCORE_TOO_LOW", message, field="config.min_match_score")


def others(warnings: Sequence[Warning], said: Sequence[Warning], peak: float) -> Sequence[Warning]:
    """Those of the engine that were not `said`. Where there is nothing to hear, it is not the transcript that is wrong."""
    codes = {warning.code for warning in said}
    mismatch = any(warning.code == "TRANSCRIPT_MISMATCH" for warning in warnings)
    silent: list[Warning] = []
    if peak < SILENT or (mismatch and peak < _FAINT):
        codes.add("TRANSCRIPT_MISMATCH")
        level = 20 * math.log10(max(peak, SILENT))
        silent.append(
            Warning("AUDIO_SILENT", f"nothing in the audio is louder than {math.ceil(level)} dBFS: there is no speech in it")
        )
    return [*silent, *(warning for warning in warnings if warning.code not in codes)]


def unreadable(tokens: Iterable[Token]) -> int:
    """Words that cannot be read in the language."""
    return sum(not token.spoken and not token.skipped for token in tokens)


def unreadable_warning(count: int) -> tuple[Warning, ...]:
    """For so many unreadable words."""
    if not count:
        return ()
    return (
        Warning(
            "WORDS_UNREADABLE", f"{count} words are in a script that cannot be read in this language, and were not looked for"
        ),
    )


def no_words(marked_up: bool, language: str) -> InvalidArgumentError:
    """For a transcript without a spoken word. `marked_up`: all of it is markup."""
    only = "nothing but markup" if marked_up else f"no words that can be read in '{language}'"
    return InvalidArgumentError("TRANSCRIPT_NO_WORDS", f"the transcript holds {only}", field="config.transcript")


def empty() -> InvalidArgumentError:
    """For a transcript without anything."""
    return InvalidArgumentError("TRANSCRIPT_EMPTY", "the transcript is empty", field="config.transcript")
