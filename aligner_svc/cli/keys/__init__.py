"""`aligner keys`: make, list, rotate and revoke API keys."""

from __future__ import annotations

import typer

from aligner_svc.cli.keys import commands

EXIT_CODES = "Exit codes: 0 success; 1 failure, such as no key with that ID; 2 wrong usage or settings; 69 database unavailable."

app = typer.Typer(
    name="keys",
    help="Make, list, rotate and revoke API keys.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("create", epilog=EXIT_CODES)(commands.create)
app.command("list", epilog=EXIT_CODES)(commands.list_keys)
app.command("show", epilog=EXIT_CODES)(commands.show)
app.command("rotate", epilog=EXIT_CODES)(commands.rotate)
app.command("revoke", epilog=EXIT_CODES)(commands.revoke)
