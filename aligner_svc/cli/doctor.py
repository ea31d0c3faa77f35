"""`aligner doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import FAILED, USAGE, Failure, reported
from aligner_svc.cli.options import ConfigFile, ReportFormat, print_json
from aligner_svc.cli.server_options import VARIABLES, ServerOptions, with_server
from aligner_svc.cli.settings import use_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligner_svc.config import Settings
    from aligner_svc.health.findings import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


@with_server
def doctor(
    server: ServerOptions,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Run this check only; may be repeated.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="Time limit per check.")] = 5.0,
    config: ConfigFile = None,
    output_format: Annotated[
        ReportFormat, typer.Option("--format", "-f", help="table for people, json for programs.")
    ] = ReportFormat.TABLE,
) -> None:
    """Check the settings, this machine and the services it needs, and say how to fix what is wrong.

    With --target (or its variable) a running server is checked as well. Changes nothing and shows no secrets.

    Exit codes: 0 no check failed; 1 a check failed; 2 wrong usage.
    """
    use_config(config)
    import asyncio
    import logging

    from aligner_svc.doctor.examination import NAMES, checks
    from aligner_svc.health.findings import Check, Severity, examine, listed

    # What libraries log is reported better, and in one place, by the findings.
    logging.basicConfig(level=logging.CRITICAL)
    with reported():
        unknown = sorted(set(only or ()) - set(NAMES))
        if unknown:
            raise Failure(f"there is no check {unknown[0]}", hint=f"one of {', '.join(NAMES)}", exit_code=USAGE)
        settings, findings = _settings()
        planned = [] if settings is None else list(checks(settings))
        if server.target_given:
            from aligner_svc.cli.doctor_target import target

            connection = server.connection()
            planned.append(Check("target", lambda: target(connection), timeout_factor=2.0))
        wanted = only or NAMES
        prefixes = (settings.keys.prefix,) if settings is not None else ("alk",)
        findings += asyncio.run(examine([check for check in planned if check.name in wanted], timeout, prefixes))
        shown = sorted((one for one in findings if one.check in wanted), key=lambda one: NAMES.index(one.check))
        ok = all(one.severity is not Severity.FAIL for one in shown)
        if output_format is ReportFormat.JSON:
            # listed() documents the keys of a finding; its state is ok, warn, fail or skip.
            print_json({"ok": ok, "findings": listed(shown)})
        else:
            _print(shown)
        raise typer.Exit(0 if ok else FAILED)


def _settings() -> tuple[Settings | None, list[Finding]]:
    """The settings, None if they are invalid, and what was found about them."""
    from aligner_svc.config.report import SettingsProblem, load, unknown_variables
    from aligner_svc.config.settings import Settings, toml_file
    from aligner_svc.health.findings import fail, ok, warn

    found = [
        warn("settings", str(unknown), "unset it, or correct its name: `aligner config` lists all settings")
        for unknown in unknown_variables(Settings, VARIABLES)
    ]
    try:
        loaded = load(Settings)
    except SettingsProblem as problem:
        hint = "the server will not start; `aligner config` shows where each value comes from"
        return None, [*found, *(fail("settings", line, hint) for line in problem.lines)]
    sources = [row.source for row in loaded.rows()]
    file = toml_file().absolute()
    from_file = f"{sources.count('file')} from {file}" if file.is_file() else f"no file ({file} does not exist)"
    message = f"profile {loaded.settings.server.profile}: {from_file}, {sources.count('environment')} from the environment"
    return loaded.settings, [ok("settings", message), *found]


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    from aligner_svc.cli.tables import plain_table, printable

    table = plain_table("state", "check", "message", fold={"message"})
    table.show_header = False
    last = ""
    for one in findings:
        state, message = one.severity.value, printable(one.message)
        if state == "skip":
            message.stylize("dim")
        table.add_row(Text(state, style=_COLOURS[state]), "" if one.check == last else one.check, message)
        if one.hint and state in {"warn", "fail"}:
            table.add_row("", "", Text("try: ", style="dim").append_text(printable(one.hint)))
        last = one.check
    console = Console(highlight=False)
    console.print(table)
    console.print()
    states = [one.severity.value for one in findings]
    failed, warned = states.count("fail"), states.count("warn")
    if failed or warned:
        console.print(f"{failed} failed, {warned} warnings", style="bold red" if failed else "yellow")
    else:
        console.print("no problems found", style="green")
