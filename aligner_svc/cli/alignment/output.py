"""The format of an alignment, and writing it to stdout or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aligner_svc.cli.alignment.request import OutputFormat

if TYPE_CHECKING:
    from aligner_client.formats import CueLayout
    from aligner_svc.domain import Alignment

SUFFIXES = {
    OutputFormat.JSON: ".json",
    OutputFormat.SRT: ".srt",
    OutputFormat.VTT: ".vtt",
    OutputFormat.TEXTGRID: ".TextGrid",
    OutputFormat.CTM: ".ctm",
    OutputFormat.ASS: ".ass",
    OutputFormat.CSV: ".csv",
    OutputFormat.WORD_VTT: ".words.vtt",
    OutputFormat.AUDACITY: ".labels.txt",
    OutputFormat.HTML: ".html",
    OutputFormat.PHONE_CTM: ".phones.ctm",
}
"""Suffixes of output files. Praat spells its own in camel case."""

WITH_WARNINGS = frozenset({OutputFormat.JSON, OutputFormat.TABLE})
"""The formats that include the warnings of an alignment."""

SUBTITLES = frozenset({OutputFormat.SRT, OutputFormat.VTT, OutputFormat.WORD_VTT, OutputFormat.ASS})
"""The formats that a CueLayout is for."""


def choose(wanted: OutputFormat | None, out: Path | None) -> OutputFormat:
    """The format asked for, else that of the file's suffix, else table on a terminal and JSON in a pipe or a file without one.

    Raises typer.BadParameter for a suffix of no format: a file named talk.docx is not JSON.
    """
    if wanted is not None:
        return wanted
    if out is None:
        return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON
    if not out.suffix or (out.exists() and not out.is_file()):
        return OutputFormat.JSON
    longest_first = sorted(SUFFIXES.items(), key=lambda item: -len(item[1]))
    for chosen, suffix in longest_first:
        if out.name.lower().endswith(suffix.lower()):
            return chosen
    known = ", ".join(SUFFIXES.values())
    message = f"no format has the suffix {out.suffix}: name it {known}, or choose one with --format"
    raise typer.BadParameter(message, param_hint="--out")


def render(
    alignment: Alignment,
    chosen: OutputFormat,
    transcript: str | None,
    recording: str,
    layout: CueLayout | None = None,
    *,
    audio: Path | None = None,
    out: Path | None = None,
) -> str:
    """The alignment as text in any format but the table. `recording` is its name, for formats that include one.

    A page has the sound of the file `audio`, and is to be written to `out`. Raises Failure, OSError if that cannot be read.
    """
    from aligner_client import formats

    if chosen is OutputFormat.HTML and audio is not None:
        from aligner_client.formats.page import render_page
        from aligner_svc.cli.alignment.sound import sound

        return render_page(alignment, transcript, recording, sound(audio, out))
    return formats.render(alignment, formats.Format(chosen.value), transcript=transcript, recording=recording, layout=layout)


def write(text: str, out: Path | None) -> None:
    """Write to a file, or to stdout if `out` is None. UTF-8, whatever the locale. Raises OSError."""
    if out is None:
        typer.echo(text.encode(), nl=False)
    else:
        write_file(out, text)


def write_file(path: Path, text: str) -> None:
    """`write_bytes`, UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, and create its directories. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout or a named pipe must not be replaced
        path.write_bytes(data)
        return
    path = path.resolve()  # a link is kept and its target replaced
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
