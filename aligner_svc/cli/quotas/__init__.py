"""`aligner quotas`: show and reset quotas, and override the quota classes of principals."""

from __future__ import annotations

import typer

from aligner_svc.cli.quotas import commands

EXIT_CODES = "Exit codes: 0 success; 1 failure, such as no Redis configured; 2 wrong usage or settings; 69 Redis unavailable."

app = typer.Typer(
    name="quotas",
    help="Show what principals have used, reset it, and put principals in other classes.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("show", epilog=EXIT_CODES)(commands.show)
app.command("reset", epilog=EXIT_CODES)(commands.reset)
app.command("set", epilog=EXIT_CODES)(commands.set_class)
app.command("overrides", epilog=EXIT_CODES)(commands.overrides)
