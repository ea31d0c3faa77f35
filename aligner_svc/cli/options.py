"""Options and JSON output that several commands share."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ReportFormat(StrEnum):
    """How a report is printed: for people or for programs."""

    TABLE = "table"
    JSON = "json"


ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML settings file. Default: aligner.toml, if it exists.")
]
Format = Annotated[
    ReportFormat | None, typer.Option("--format", "-f", help="Output format. Default: table on a terminal, json otherwise.")
]


def wants_json(chosen: ReportFormat | None) -> bool:
    """Whether to print JSON: as chosen, by default when stdout is not a terminal."""
    return not sys.stdout.isatty() if chosen is None else chosen is ReportFormat.JSON


def print_json(value: object) -> None:
    """Print to stdout in UTF-8, whatever the locale."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False).encode())
