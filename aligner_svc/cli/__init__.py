"""The `aligner` command. Imports nothing heavy, so that `aligner --help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aligner_svc.cli import cluster, config, devcerts, doctor, info, keys, quotas, serve
from aligner_svc.cli.alignment import check, retime
from aligner_svc.cli.alignment import command as align
from aligner_svc.cli.audit import command as audit
from aligner_svc.cli.top import command as top

app = typer.Typer(
    name="aligner",
    help="Find out when each word of a transcript was spoken in a recording.",
    epilog="Exit codes: 0 success; 1 failure; 2 wrong usage or settings; 69 server unavailable; 130 interrupted.",
    # Expected failures are reported by failures.py. Anything else is a bug and shows its traceback,
    # but without local variables: they hold audio and text.
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aligner {version('aligner-svc')}")
        raise typer.Exit


_NEXT = """\
Find out when each word of a transcript was spoken in a recording.

Start a server on this machine, and leave it running:
  aligner serve

Then, in another terminal:
  aligner align talk.mp3 --text "Good evening, everyone."
  aligner align talk.mp3 --out talk.srt        the text is read from talk.txt

All commands: aligner --help"""


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(_NEXT)


app.command("align")(align.align)
app.command("check")(check.check)
app.command("retime")(retime.retime)
app.command("serve")(serve.serve)
app.add_typer(cluster.app)
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
