"""Where an alignment is written, and in which of the formats."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aligner_svc.cli.options import OutputFormat

if TYPE_CHECKING:
    from aligner_svc.domain import Alignment

SUFFIXES = {
    OutputFormat.JSON: ".json",
    OutputFormat.SRT: ".srt",
    OutputFormat.VTT: ".vtt",
    OutputFormat.TEXTGRID: ".TextGrid",
    OutputFormat.CTM: ".ctm",
}
"""File name endings; Praat's is in camel case by custom."""

HOLD_WARNINGS = frozenset({OutputFormat.JSON, OutputFormat.TABLE})
"""The formats in which the answer's warnings are read."""


def choose(wanted: OutputFormat | None, out: Path | None) -> OutputFormat:
    """What was asked for; else what the file's name says; else a table for a person and JSON for a program."""
    if wanted is not None:
        return wanted
    if out is not None:
        suffixes = {suffix.lower(): chosen for chosen, suffix in SUFFIXES.items()}
        return suffixes.get(out.suffix.lower(), OutputFormat.JSON)
    return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON


def render(alignment: Alignment, chosen: OutputFormat, transcript: str, recording: str) -> str:
    """The alignment as text; `recording` is its name, for the formats that hold one. Not for the table."""
    from aligner_svc import formats

    return formats.render(alignment, formats.Format(chosen.value), transcript=transcript, recording=recording)


def write(alignment: Alignment, chosen: OutputFormat, transcript: str, recording: str, out: Path | None) -> None:
    """To the file, or to stdout where there is none. UTF-8, whatever the locale. Raises OSError."""
    if chosen is OutputFormat.TABLE:
        from aligner_svc.cli.alignment.table import print_table

        print_table(alignment, out)
    elif out is None:
        typer.echo(render(alignment, chosen, transcript, recording).encode(), nl=False)
    else:
        write_file(out, render(alignment, chosen, transcript, recording))


def write_file(path: Path, text: str) -> None:
    """Write below directories that may not be there yet; under its name the file is whole or not there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout, a named pipe: nothing to put another file in the place of
        path.write_text(text, encoding="utf-8", newline="")
        return
    path = path.resolve()  # a link stays one
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
