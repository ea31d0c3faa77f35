"""`aligner info`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import dataclasses
import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.credentials import ServerOptions
from aligner_svc.cli.failures import from_client, reported
from aligner_svc.cli.server_options import with_server

if TYPE_CHECKING:
    from aligner_svc.client import ServerInfo


class InfoFormat(StrEnum):
    """How the server is described."""

    TABLE = "table"
    JSON = "json"


@with_server
def info(
    server: ServerOptions,
    output_format: Annotated[
        InfoFormat | None, typer.Option("--format", "-f", help="Default: table on a terminal, json elsewhere.")
    ] = None,
) -> None:
    """Show what a server runs and accepts.

    Exit codes: 0 it answered; 1 failed; 69 it cannot be reached.
    """
    from aligner_svc.client import AlignerClientError

    connection = server.connection()
    with reported():
        try:
            with connection.open() as aligner:
                answer = aligner.server_info()
        except AlignerClientError as error:
            raise from_client(error, f"{connection.target} did not say what it is", connection.target) from error
        chosen = output_format or (InfoFormat.TABLE if sys.stdout.isatty() else InfoFormat.JSON)
        typer.echo(_table(answer) if chosen is InfoFormat.TABLE else json.dumps(dataclasses.asdict(answer), indent=2))


def _table(answer: ServerInfo) -> str:
    limits = answer.limits
    rows = {
        "version": answer.version,
        "engine": answer.engine,
        "languages": ", ".join(answer.languages),
        "largest file": f"{_mib(limits.unary_audio_bytes)}, streamed {_mib(limits.stream_audio_bytes)}",
        "longest audio": f"{limits.audio_seconds:g} s",
        "longest transcript": f"{limits.transcript_chars} characters",
    }
    return "\n".join(f"{name:20}{value}" for name, value in rows.items())


def _mib(count: int) -> str:
    return f"{count / (1 << 20):g} MiB"
