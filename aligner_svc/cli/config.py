"""`aligner config`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import json
import math
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligner_svc.cli.credentials import VARIABLES
from aligner_svc.cli.failures import from_settings, reported, warn

if TYPE_CHECKING:
    from aligner_svc.config.report import Row


class ConfigFormat(StrEnum):
    """How the settings are printed."""

    TOML = "toml"
    JSON = "json"


def config(
    output_format: Annotated[
        ConfigFormat, typer.Option("--format", "-f", help="toml can be used as aligner.toml.")
    ] = ConfigFormat.TOML,
    file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML settings; default aligner.toml, if there.")
    ] = None,
) -> None:
    """Print every setting in force and where it comes from: default, file or environment variable.

    Secrets are asterisks. Exit codes: 0 fine; 2 a setting is wrong.
    """
    if file is not None:
        os.environ["ALIGNER_CONFIG"] = str(file)
    from aligner_svc.config import Settings
    from aligner_svc.config.report import SettingsProblem, load, unknown_variables

    for unknown in unknown_variables(Settings, VARIABLES):
        warn(str(unknown))
    with reported():
        try:
            rows = load(Settings).rows()
        except SettingsProblem as problem:
            raise from_settings(problem) from None
        typer.echo(as_toml(rows) if output_format is ConfigFormat.TOML else as_json(rows), nl=False)


def as_json(rows: list[Row]) -> str:
    """{"limits.audio_seconds": {"value": 600.0, "source": "environment", "origin": "ALIGNER_LIMITS__AUDIO_SECONDS"}, ...}."""
    settings = {row.key: {"value": row.value, "source": row.source, "origin": row.origin or None} for row in rows}
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def as_toml(rows: list[Row]) -> str:
    """A settings file, each line with its source in a comment."""
    lines: list[str] = []
    section = ""
    for row in rows:
        *tables, name = row.key.split(".")
        if ".".join(tables) != section:
            section = ".".join(tables)
            lines += ["", f"[{section}]"]
        source = f"{row.source}: {row.origin}" if row.origin else row.source
        value = _toml(row.value)
        # TOML has no null; left out is what null means.
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
    # A JSON string is a TOML one but for DEL, and but for escaped surrogates, which are not used here.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
