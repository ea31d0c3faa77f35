"""The sounds of words, which a call may ask for and may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from aligner_svc.domain import Token
from aligner_svc.engines.base import Engine, PhoneEngine, PhoneSet
from aligner_svc.errors import InvalidArgumentError, UnsupportedError
from aligner_svc.pipeline.job import Job
from aligner_svc.text.readings import of_sounds

_SHOWN = 8
"""Characters of a symbol that is not known."""

Given = Mapping[str, str]
"""By a word in small letters, the spoken word that stands for it."""


def phone_set(job: Job, engine: Engine, language: str) -> str:
    """The name of the symbols of the phones that are asked for; empty if they are not. Raises UnsupportedError."""
    if not job.phones:
        return ""
    symbols = _sets(engine).get(language)
    if symbols is None:
        raise UnsupportedError("PHONES_UNSUPPORTED", _none(engine, language), field="config.detail")
    return symbols.name


def given(job: Job, engine: Engine, language: str) -> Given:
    """The pronunciations that the call gives. Raises UnsupportedError, InvalidArgumentError."""
    if not job.pronunciations:
        return {}
    phones = _sets(engine).get(language)
    if phones is None:
        raise UnsupportedError("PRONUNCIATIONS_UNSUPPORTED", _none(engine, language), field="config.pronunciations")
    return read(job.pronunciations, phones)


def read(pronunciations: Mapping[str, str], phones: PhoneSet) -> Given:
    """Of symbols with blanks between. Raises InvalidArgumentError."""
    found: dict[str, str] = {}
    for word, pronunciation in pronunciations.items():
        written = pronunciation.split()
        symbols = [symbol for one in written if (symbol := phones.symbol(one)) is not None]
        if not symbols or len(symbols) < len(written):
            unknown = next((one for one in written if phones.symbol(one) is None), None)
            fault = "a pronunciation has no symbol" if unknown is None else f"{unknown[:_SHOWN]!r} is no symbol"
            message = f"{fault} of {phones.name}"
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


def _sets(engine: Engine) -> Mapping[str, PhoneSet]:
    return engine.phone_sets if isinstance(engine, PhoneEngine) else {}


def _none(engine: Engine, language: str) -> str:
    known = ", ".join(sorted(_sets(engine)))
    return f"{engine.name} has no phones of '{language}', nor of other languages{f' but for {known}' if known else ''}"
