"""`aligner doctor`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import inspect
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligner_svc.cli.credentials import VARIABLES, ServerOptions
from aligner_svc.cli.failures import FAILED, USAGE, Failure, reported
from aligner_svc.cli.server_options import with_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligner_svc.config import Settings
    from aligner_svc.health.findings import Check, Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


class DoctorFormat(StrEnum):
    """How findings are shown."""

    TABLE = "table"
    JSON = "json"


def _doctor(  # noqa: PLR0917 - typer makes flags of them; nobody gives them by position
    server: ServerOptions,
    asked: bool,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="This check; may be repeated.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="For each check.")] = 5.0,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML settings; default aligner.toml.")] = None,
    output_format: Annotated[DoctorFormat, typer.Option("--format", "-f", help="json is for programs.")] = DoctorFormat.TABLE,
) -> None:
    """Tell what is in force here, whether it will do, and what to do where it will not. With --target a running server too.

    Reads and asks; changes nothing, and shows no secret. Exit codes: 0 fine; 1 something fails; 2 wrong usage.
    """
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)
    import asyncio
    import logging

    from aligner_svc.doctor.examination import NAMES
    from aligner_svc.health.findings import Severity, examine

    # Libraries warn of what the findings say better, and in lines of their own.
    logging.basicConfig(level=logging.CRITICAL)
    with reported():
        unknown = sorted(set(only or ()) - set(NAMES))
        if unknown:
            raise Failure(f"there is no check {unknown[0]}", hint=f"one of {', '.join(NAMES)}", exit_code=USAGE)
        settings, found = _settings()
        checks = [check for check in _checks(settings, server if asked else None) if not only or check.name in only]
        prefixes = (settings.keys.prefix,) if settings is not None else ("alk",)
        examined = asyncio.run(examine(checks, timeout, prefixes))
        shown = sorted(
            [*(one for one in found if not only or one.check in only), *examined], key=lambda one: NAMES.index(one.check)
        )
        failed = any(one.severity is Severity.FAIL for one in shown)
        if output_format is DoctorFormat.JSON:
            typer.echo(as_json(shown))
        else:
            _print(shown)
        raise typer.Exit(FAILED if failed else 0)


_served = with_server(_doctor)


def doctor(ctx: typer.Context, **values: Any) -> None:
    """See _doctor. A server is looked at where somebody names one: the others of its options have defaults as well."""
    source = getattr(ctx.get_parameter_source("target"), "name", "")
    _served(ctx, asked=source in {"COMMANDLINE", "ENVIRONMENT"}, **values)


_parameters = [one for one in inspect.signature(_served).parameters.values() if one.name != "asked"]
doctor.__doc__, doctor.__annotations__ = _doctor.__doc__, {}
doctor.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]


def as_json(findings: Sequence[Finding]) -> str:
    """{"ok": bool, "findings": [{"check", "state", "said", "hint"}, ...]}; state is ok, warn, fail or skip."""
    from aligner_svc.health.findings import listed

    told = listed(findings)
    return json.dumps({"ok": all(one["state"] != "fail" for one in told), "findings": told}, indent=2, ensure_ascii=False)


def _settings() -> tuple[Settings | None, list[Finding]]:
    """None where they cannot be used: then what depends on them cannot be checked."""
    from aligner_svc.config.report import SettingsProblem, load, unknown_variables
    from aligner_svc.config.settings import Settings, toml_file
    from aligner_svc.health.findings import Finding, Severity

    found = [
        Finding("settings", Severity.WARN, str(unknown), "unset it, or correct the name: `aligner config` lists all there are")
        for unknown in unknown_variables(Settings, VARIABLES)
    ]
    try:
        loaded = load(Settings)
    except SettingsProblem as problem:
        hint = "the server would not start; `aligner config` shows where each value comes from"
        return None, [*found, *(Finding("settings", Severity.FAIL, line, hint) for line in problem.lines)]
    rows = loaded.rows()
    set_by = {source: sum(row.source == source for row in rows) for source in ("file", "environment")}
    file = toml_file()
    named = f"{set_by['file']} from {file.absolute()}" if file.is_file() else f"no file ({file.absolute()} is not there)"
    said = f"profile {loaded.settings.server.profile}: {named}, {set_by['environment']} from the environment"
    return loaded.settings, [Finding("settings", Severity.OK, said), *found]


def _checks(settings: Settings | None, server: ServerOptions | None) -> list[Check]:
    """`server`: that is to be looked at too."""
    from aligner_svc.health.findings import Check

    checks: list[Check] = []
    if settings is not None:
        from aligner_svc.doctor.examination import checks as local

        checks += local(settings)
    if server is not None:
        from aligner_svc.cli.doctor_target import target

        connection = server.connection()
        checks.append(Check("target", lambda: target(connection), timeout_factor=2.0))
    return checks


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from aligner_svc.cli.alignment.table import printable

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for one in findings:
        style = _COLOURS[one.severity.value]
        said = printable(one.message)
        if one.severity.value == "skip":
            said.stylize("dim")
        table.add_row(Text(one.severity.value, style=style), "" if one.check == last else one.check, said)
        if one.hint and one.severity.value in {"warn", "fail"}:
            table.add_row("", "", Text("try: ", style="dim").append_text(printable(one.hint)))
        last = one.check
    console = Console(highlight=False)
    console.print(table)
    count = {state: sum(one.severity.value == state for one in findings) for state in ("fail", "warn")}
    console.print()
    if not any(count.values()):
        console.print("nothing to do", style="green")
    else:
        console.print(f"{count['fail']} to mend, {count['warn']} to look at", style="bold red" if count["fail"] else "yellow")
