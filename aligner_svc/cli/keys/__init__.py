"""`aligner keys`: a file each for what is done, what is shown and what is typed."""

from __future__ import annotations

import typer

from aligner_svc.cli.keys import commands

app = typer.Typer(
    name="keys",
    help="Make, list, rotate and revoke API keys.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 69 the key database is out of reach.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("create")(commands.create)
app.command("list")(commands.list_keys)
app.command("show")(commands.show)
app.command("rotate")(commands.rotate)
app.command("revoke")(commands.revoke)
