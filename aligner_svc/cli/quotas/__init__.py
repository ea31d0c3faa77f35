"""`aligner quotas`: a file each for what is done, what is shown and what it is done with."""

from __future__ import annotations

import typer

from aligner_svc.cli.quotas import commands

app = typer.Typer(
    name="quotas",
    help="See what callers have left, give it back, put them in another class.",
    epilog="Exit codes: 0 done; 1 failed, or there is no Redis; 2 wrong usage or settings; 69 Redis is out of reach.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("show")(commands.show)
app.command("reset")(commands.reset)
app.command("set")(commands.set_class)
app.command("overrides")(commands.overrides)
