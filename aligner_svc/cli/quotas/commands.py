"""The commands of `aligner quotas`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc and pydantic

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import USAGE, Failure, reported, warn
from aligner_svc.cli.quotas import shown

if TYPE_CHECKING:
    from aligner_svc.cli.quotas.access import QuotaAccess

_SECONDS = 5
"""Until servers have read what was set: interceptors.quota.overrides.EVERY, whose import takes time."""


class QuotaFormat(StrEnum):
    """How it is shown."""

    TABLE = "table"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML settings; default aligner.toml, if there.")]
Print = Annotated[QuotaFormat | None, typer.Option("--format", "-f", help="Default: table on a terminal, json elsewhere.")]


def show(
    principal: Annotated[
        str | None,
        typer.Argument(metavar="[PRINCIPAL]", help="A caller, as the audit log names it: key:3fb1c9...", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Callers to list.")] = 20,
    output_format: Print = None,
    config: Config = None,
) -> None:
    """Show what a caller has left; without a name, who has used most.

    Exit codes: 0 done; 1 failed, or there is no Redis; 2 wrong usage or settings; 69 Redis is out of reach.
    """
    from aligner_svc.cli.quotas.access import run, subject

    with reported():
        name = None if principal is None else subject(principal)

        async def one(access: QuotaAccess) -> None:
            usage = await access.usage(name or "")
            if _as_json(output_format):
                shown.print_json(shown.as_object(usage))
            else:
                shown.print_one(usage)

        async def several(access: QuotaAccess) -> None:
            usages = await access.most_used(limit)
            if _as_json(output_format):
                shown.print_json([shown.as_object(usage) for usage in usages])
            elif usages:
                shown.print_table(usages)
            else:
                typer.echo(f"nobody has used anything, as far as {access.store.place} knows", err=True)

        run(config, several if name is None else one)


def reset(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A caller, as `aligner quotas show` lists it.")],
    config: Config = None,
) -> None:
    """Fill all of a caller's quotas and free its slots.

    Calls that go on take their slots again within 10 seconds.

    Exit codes: 0 done; 1 failed, or there is no Redis; 2 wrong usage or settings; 69 Redis is out of reach.
    """
    from aligner_svc.cli.quotas.access import run, subject

    with reported():
        name = subject(principal)

        async def work(access: QuotaAccess) -> None:
            used = (await access.usage(name)).used
            await access.store.reset(name)
            parts = ", ".join(f"{quota} {part:.0%} used" for quota, part in used.items() if part >= 0.005)
            access.record(name, f"quota reset: {parts or 'nothing was used'}")
            if parts:
                typer.echo(f"{name} has all of its quotas again; before: {parts}", err=True)
            else:
                warn(f"{name} had all of its quotas; is the name right? `aligner quotas show` lists who is known")

        run(config, work)


def set_class(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A caller, or a pattern as in the file: 'key:*'.")],
    quota_class: Annotated[str | None, typer.Argument(metavar="[CLASS]", help="A class of the file.", show_default=False)] = None,
    default: Annotated[bool, typer.Option("--default", help="Take it back: the file says again what the class is.")] = False,
    config: Config = None,
) -> None:
    """Put a caller in a class, on all servers and until it is taken back, without a change to their files.

    Servers take it over within 5 seconds. What the caller has used stays used.

    Exit codes: 0 done; 1 failed, or there is no Redis; 2 wrong usage or settings; 69 Redis is out of reach.
    """
    from aligner_svc.cli.quotas.access import name_or_pattern, run

    with reported():
        name = name_or_pattern(principal)
        if (quota_class is None) is not default:
            raise Failure("a class is needed, or --default, and not both", hint=f"{name} CLASS", exit_code=USAGE)

        async def put(access: QuotaAccess) -> None:
            target = quota_class or ""
            access.check_class(target)
            before = await access.overrides.put(name, target)
            access.record(name, f"class {target}, was {_was(before)}")
            typer.echo(f"{name} is in the class {target}: servers take it over within {_SECONDS} s", err=True)

        async def take_back(access: QuotaAccess) -> None:
            before = await access.overrides.remove(name)
            if before is None:
                warn(f"{name} was put in no class at run time; `aligner quotas overrides` lists who was")
                return
            access.record(name, f"class of the file, was {_was(before)}")
            typer.echo(f"{name} is in the class that the file says: servers take it over within {_SECONDS} s", err=True)

        run(config, take_back if default else put)


def overrides(output_format: Print = None, config: Config = None) -> None:
    """List who was put in a class with `set`.

    Exit codes: 0 done; 1 failed, or there is no Redis; 2 wrong usage or settings; 69 Redis is out of reach.
    """
    from aligner_svc.cli.quotas.access import run

    with reported():

        async def work(access: QuotaAccess) -> None:
            given = await access.overrides.read()
            if _as_json(output_format):
                shown.print_json(given)
            elif given:
                shown.print_classes(given)
            else:
                typer.echo("nobody was put in a class at run time", err=True)

        run(config, work)


def _was(before: str | None) -> str:
    return "that of the file" if before is None else f"{before}, set at run time"


def _as_json(chosen: QuotaFormat | None) -> bool:
    return not sys.stdout.isatty() if chosen is None else chosen is QuotaFormat.JSON
