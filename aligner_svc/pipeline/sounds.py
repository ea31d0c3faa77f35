"""The sounds of words, which a call may ask for and may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from aligner_svc.domain import Token
from aligner_svc.engines.base import Engine, PhoneEngine
from aligner_svc.errors import InvalidArgumentError, UnsupportedError
from aligner_svc.pipeline.job import Job
from aligner_svc.text.arpabet import IPA
from aligner_svc.text.readings import of_sounds

_SHOWN = 8
"""Characters of a symbol that is not known."""

Given = Mapping[str, str]
"""By a word in small letters, the spoken word that stands for it."""


def phone_set(job: Job, engine: Engine, language: str) -> str:
    """The name of the symbols of the phones that are asked for; empty if they are not. Raises UnsupportedError."""
    if not job.phones:
        return ""
    name = _sets(engine).get(language)
    if name is None:
        raise UnsupportedError("PHONES_UNSUPPORTED", _none(engine, language), field="config.detail")
    return name


def given(job: Job, engine: Engine, language: str) -> Given:
    """The pronunciations that the call gives. Raises UnsupportedError, InvalidArgumentError."""
    if not job.pronunciations:
        return {}
    name = _sets(engine).get(language)
    if name is None:
        raise UnsupportedError("PRONUNCIATIONS_UNSUPPORTED", _none(engine, language), field="config.pronunciations")
    found: dict[str, str] = {}
    for word, pronunciation in job.pronunciations.items():
        symbols = [symbol.rstrip("012") for symbol in pronunciation.split()]
        unknown = [symbol for symbol in symbols if symbol not in IPA]
        if unknown or not symbols:
            fault = f"{unknown[0][:_SHOWN]!r} is no symbol" if unknown else "a pronunciation has no symbol"
            message = f"{fault} of {name}"
            raise InvalidArgumentError("PRONUNCIATION_INVALID", message, field="config.pronunciations")
        found[word.casefold()] = of_sounds(symbols)
    return found


def pronounced(tokens: Sequence[Token], pronunciations: Given) -> Sequence[Token]:
    """The tokens, those with a pronunciation spoken by it."""
    if not pronunciations:
        return tokens
    changed = []
    for token in tokens:
        spoken = None if token.skipped else pronunciations.get(token.text.casefold())
        changed.append(token if spoken is None else replace(token, spoken=(spoken,)))
    return changed


def _sets(engine: Engine) -> Mapping[str, str]:
    return engine.phone_sets if isinstance(engine, PhoneEngine) else {}


def _none(engine: Engine, language: str) -> str:
    known = ", ".join(sorted(_sets(engine)))
    return f"{engine.name} has no phones of '{language}', nor of other languages{f' but for {known}' if known else ''}"
