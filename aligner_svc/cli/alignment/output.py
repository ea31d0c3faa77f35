"""The format of an alignment, and writing it to stdout or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aligner_svc.cli.alignment.request import OutputFormat

if TYPE_CHECKING:
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
}
"""Suffixes of output files. Praat spells its own in camel case. Of a name with two, the last alone says which format is meant."""

WITH_WARNINGS = frozenset({OutputFormat.JSON, OutputFormat.TABLE})
"""The formats that include the warnings of an alignment."""


def choose(wanted: OutputFormat | None, out: Path | None) -> OutputFormat:
    """The format asked for, else that of the file's suffix (JSON if unknown), else table on a terminal and JSON in a pipe."""
    if wanted is not None:
        return wanted
    if out is not None:
        suffixes = {suffix.lower(): chosen for chosen, suffix in SUFFIXES.items()}
        return suffixes.get(out.suffix.lower(), OutputFormat.JSON)
    return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON


def render(alignment: Alignment, chosen: OutputFormat, transcript: str, recording: str) -> str:
    """The alignment as text in any format but the table. `recording` is its name, for formats that include one."""
    from aligner_client import formats

    return formats.render(alignment, formats.Format(chosen.value), transcript=transcript, recording=recording)


def write(alignment: Alignment, chosen: OutputFormat, transcript: str, recording: str, out: Path | None) -> None:
    """Write to a file, or to stdout if `out` is None. UTF-8, whatever the locale. Raises OSError."""
    if chosen is OutputFormat.TABLE:
        from aligner_svc.cli.alignment.table import print_table

        print_table(alignment, out)
    elif out is None:
        typer.echo(render(alignment, chosen, transcript, recording).encode(), nl=False)
    else:
        write_file(out, render(alignment, chosen, transcript, recording))


def write_file(path: Path, text: str) -> None:
    """Write a file atomically, and create its directories. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout or a named pipe must not be replaced
        path.write_text(text, encoding="utf-8", newline="")
        return
    path = path.resolve()  # a link is kept and its target replaced
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
