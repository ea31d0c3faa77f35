"""The `aligner` command. Nothing heavy is imported here: `aligner --help` has to answer at once."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aligner_svc.cli import config, devcerts, doctor, info, keys, quotas, serve
from aligner_svc.cli.alignment import command as align
from aligner_svc.cli.audit import command as audit
from aligner_svc.cli.top import command as top

app = typer.Typer(
    name="aligner",
    help="When was each word of a transcript spoken in a recording?",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 69 the server cannot be reached; 130 interrupted.",
    no_args_is_help=True,
    # Failures a person can act on are reported in failures.py; anything else is a bug and
    # its traceback belongs in the report, without the locals (they hold audio and text).
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aligner {version('aligner-svc')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("align")(align.align)
app.command("serve")(serve.serve)
app.command("config")(config.config)
app.command("info")(info.info)
app.add_typer(keys.app)
app.add_typer(quotas.app)
app.command("audit")(audit.audit)
app.command("devcerts")(devcerts.devcerts)
app.command("doctor")(doctor.doctor)
app.command("top")(top.top)


def main() -> None:
    """The entry point. Does not return."""
    sys.exit(app())
