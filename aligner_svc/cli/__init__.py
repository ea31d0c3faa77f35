"""The `aligner` command. Imports nothing heavy, so that `aligner --help` answers at once."""

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
    help="Find out when each word of a transcript was spoken in a recording.",
    epilog="Exit codes: 0 success; 1 failure; 2 wrong usage or settings; 69 server unavailable; 130 interrupted.",
    no_args_is_help=True,
    # Expected failures are reported by failures.py. Anything else is a bug and shows its traceback,
    # but without local variables: they hold audio and text.
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
    """Run the command line and exit the process with its status."""
    sys.exit(app())
