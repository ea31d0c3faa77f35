"""`aligner info`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer

from aligner_svc.cli.failures import from_client, reported
from aligner_svc.cli.options import Format, wants_json
from aligner_svc.cli.server_options import ServerOptions, with_server

if TYPE_CHECKING:
    from aligner_client import ServerInfo


@with_server
def info(server: ServerOptions, output_format: Format = None) -> None:
    """Show the version, engine, languages and limits of a server.

    Exit codes: 0 success; 1 failure; 2 wrong usage; 69 server unavailable.
    """
    from aligner_client import AlignerClientError

    connection = server.connection()
    with reported():
        try:
            with connection.open() as aligner:
                answer = aligner.server_info()
        except AlignerClientError as error:
            raise from_client(error, f"no information from {connection.target}", connection.target) from error
        typer.echo(json.dumps(dataclasses.asdict(answer), indent=2) if wants_json(output_format) else _table(answer))


def _table(answer: ServerInfo) -> str:
    limits = answer.limits
    rows = {
        "version": answer.version,
        "engine": answer.engine,
        "languages": ", ".join(answer.languages),
        "max file size": f"{_mib(limits.unary_audio_bytes)}, streamed {_mib(limits.stream_audio_bytes)}",
        "max audio length": f"{limits.audio_seconds:g} s",
        "max transcript": f"{limits.transcript_chars} characters",
    }
    return "\n".join(f"{name:20}{value}" for name, value in rows.items())


def _mib(count: int) -> str:
    return f"{count / (1 << 20):g} MiB"
