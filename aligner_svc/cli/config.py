"""`aligner config`."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligner_svc.cli.failures import reported
from aligner_svc.cli.options import ConfigFile
from aligner_svc.cli.settings import load_settings

if TYPE_CHECKING:
    from aligner_svc.config.report import Row


class ConfigFormat(StrEnum):
    """How the settings are printed."""

    TOML = "toml"
    JSON = "json"


def config(
    output_format: Annotated[
        ConfigFormat, typer.Option("--format", "-f", help="toml can be saved as aligner.toml.")
    ] = ConfigFormat.TOML,
    file: ConfigFile = None,
) -> None:
    """Print every setting in force and where its value comes from: default, file or environment variable.

    Secrets are printed as asterisks. Exit codes: 0 success; 2 a setting is invalid.
    """
    with reported():
        rows = load_settings(file).rows()
        typer.echo(as_toml(rows) if output_format is ConfigFormat.TOML else as_json(rows), nl=False)


def as_json(rows: list[Row]) -> str:
    """{"limits.audio_seconds": {"value": 600.0, "source": "environment", "origin": "ALIGNER_LIMITS__AUDIO_SECONDS"}, ...}."""
    settings = {row.key: {"value": row.value, "source": row.source, "origin": row.origin or None} for row in rows}
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def as_toml(rows: list[Row]) -> str:
    """A settings file, with the source of each value in a comment."""
    lines: list[str] = []
    section = ""
    for row in rows:
        table, _, name = row.key.rpartition(".")
        if table != section:
            section = table
            lines += ["", f"[{section}]"]
        source = f"{row.source}: {row.origin}" if row.origin else row.source
        value = _toml(row.value)
        # TOML has no null: a setting that is not set is left out.
        lines.append(f"# {name} is not set  # {source}" if value is None else f"{name} = {value}  # {source}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return f"[{', '.join(filter(None, map(_toml, value)))}]"
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    # A JSON string is a TOML string, except for DEL and for escaped surrogates, which do not occur here.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
