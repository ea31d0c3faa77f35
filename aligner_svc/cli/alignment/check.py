"""`aligner check`: how the words of a transcript are read, without audio and without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from aligner_svc.cli.alignment import corpus
from aligner_svc.cli.failures import FAILED, Failure, reported

if TYPE_CHECKING:
    from aligner_svc.domain import Token

_ENGLISH = "en"


class Knowledge(StrEnum):
    """What is known of a word."""

    KNOWN = "known"
    """In the dictionary."""
    GUESSED = "guessed"
    """Spelled by rules: a name, a slip of the pen; it may be found less well."""
    UNREADABLE = "unreadable"
    """Nothing that the language can pronounce; it comes back NOT_FOUND."""
    SKIPPED = "skipped"
    """Markup, which is not looked for."""


class CheckedWord(NamedTuple):
    """A word of the transcript: what is looked for in its place, and its sounds, if they are known here."""

    text: str
    char_start: int
    spoken: str
    phones: str
    found: Knowledge


def check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Transcript, UTF-8.")] = None,
    *,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="The transcript itself.")] = None,
    language: Annotated[str, typer.Option(metavar="TAG", help="Language spoken, as a BCP-47 tag.")] = _ENGLISH,
    every: Annotated[bool, typer.Option("--all", help="All words, also those that are read as they are written.")] = False,
    pronunciations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A word and its sounds in each line, as for align."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All words, as JSON.")] = False,
) -> None:
    """Show how the embedded engine reads a transcript: figures, capitals, labels, and words that it does not know.

    Without audio and without a server. Sounds are ARPABET for English, else IPA.

    Exit codes: 0 something can be aligned; 1 nothing can; 2 wrong usage.
    """
    if (file is None) == (text is None):
        raise typer.BadParameter("give either FILE or --text", param_hint="FILE, --text")
    with reported():
        transcript = text if text is not None else corpus.read_text(file)  # type: ignore[arg-type]  # one of them is given
        readings = list(_readings(transcript, language, corpus.pronunciations(pronunciations) or {}))
        if as_json:
            typer.echo(json.dumps([reading._asdict() for reading in readings], ensure_ascii=False, indent=2))
        else:
            _show(readings, every=every)
    if not any(reading.spoken for reading in readings):
        raise typer.Exit(FAILED)


def _readings(transcript: str, language: str, pronunciations: Mapping[str, str]) -> Iterator[CheckedWord]:
    """Raises Failure."""
    from aligner_svc import text
    from aligner_svc.engines.pocketsphinx.languages import table
    from aligner_svc.errors import AlignerError
    from aligner_svc.pipeline import sounds
    from aligner_svc.text import spoken
    from aligner_svc.text.characters import check_characters
    from aligner_svc.text.model_words import LANGUAGES
    from aligner_svc.text.transcript import words

    try:
        check_characters(transcript)
        tag = text.normalise_language(language)
        if tag not in {_ENGLISH, *table.served("all"), *LANGUAGES}:
            raise Failure(f"no engine aligns the language '{tag}'", hint="see docs/languages.md and docs/qwen.md")
        given = sounds.read(pronunciations, table.phones(tag))
        tokens = sounds.pronounced(words(transcript, text.tokenise if tag == _ENGLISH else spoken.tokenise, tag), given)
    except AlignerError as error:
        raise Failure("the transcript cannot be read", why=error.message) from None
    yield from _english(tokens) if tag == _ENGLISH else _others(tokens, tag)


def _english(tokens: Sequence[Token]) -> Iterator[CheckedWord]:
    from pocketsphinx import get_model_path

    from aligner_svc.engines.pocketsphinx.lexicon import Speller
    from aligner_svc.text import readings

    lines = Path(get_model_path(), "en-us", "cmudict-en-us.dict").read_text(encoding="utf-8").splitlines()
    dictionary = dict(line.split(" ", 1) for line in lines)
    speller = Speller()
    for token in tokens:
        parts = [part for word in token.spoken for part in readings.ways(word)[0]]
        phones = [dictionary.get(part) or " ".join(speller.phones(part)) for part in parts]
        found = Knowledge.KNOWN if all(part in dictionary or readings.sounds(part) for part in parts) else Knowledge.GUESSED
        yield _reading(token, " ".join(parts), ", ".join(phones), found)


def _others(tokens: Sequence[Token], language: str) -> Iterator[CheckedWord]:
    """The sounds of a language that the embedded engine does not align are not known."""
    from aligner_svc.engines.pocketsphinx.languages import table
    from aligner_svc.engines.pocketsphinx.languages.spelling import LanguageSpeller
    from aligner_svc.text import readings

    speller = LanguageSpeller([language]) if language in table.served("all") else None
    for token in tokens:
        parts = [part for word in token.spoken for part in readings.ways(word)[0]]
        said = [ways[0] for part in parts if (ways := speller.ways(part, language))] if speller else []
        phones = ", ".join(" ".join(sound.symbol for sound in way) for way in said)
        found = Knowledge.UNREADABLE if speller and not said else Knowledge.KNOWN
        yield _reading(token, " ".join(parts), phones, found)


def _reading(token: Token, spoken: str, phones: str, found: Knowledge) -> CheckedWord:
    if not token.spoken:
        found = Knowledge.SKIPPED if token.skipped else Knowledge.UNREADABLE
    if spoken.startswith("="):  # readings.of_sounds
        spoken = token.text
    return CheckedWord(token.text, token.char_start, spoken, phones, found)


def _show(readings: Sequence[CheckedWord], *, every: bool) -> None:
    from rich.console import Console

    from aligner_svc.cli.tables import plain_table, print_fitted, printable

    table = plain_table("word", "at", "read as", "sounds", "", fold={"word", "read as", "sounds"}, right={"at"})
    for reading in readings:
        if every or reading.found is not Knowledge.KNOWN or reading.spoken != reading.text.lower():
            cells = (printable(reading.text), str(reading.char_start), printable(reading.spoken), reading.phones)
            table.add_row(*cells, "" if reading.found is Knowledge.KNOWN else reading.found.value)
    console = Console(highlight=False)
    if table.row_count:
        print_fitted(console, table, drop={"sounds"})
    counts = {found: sum(reading.found is found for reading in readings) for found in Knowledge}
    shown = ", ".join(f"{count} {found.value}" for found, count in counts.items() if count and found is not Knowledge.KNOWN)
    console.print(
        f"{len(readings)} word{'s' * (len(readings) != 1)}" + (f": {shown}" if shown else ", all known" * bool(readings)),
        style="bold",
    )
