"""The commands of `aligner quotas`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import USAGE, Failure, reported, warn
from aligner_svc.cli.options import ConfigFile, Format, print_json, wants_json

if TYPE_CHECKING:
    from aligner_svc.cli.quotas.access import QuotaAccess

EFFECTIVE_WITHIN = 5
"""Seconds until servers have read a change. Equals interceptors.quota.overrides.EVERY, which is slow to import."""


def show(
    principal: Annotated[
        str | None,
        typer.Argument(metavar="[PRINCIPAL]", help="A principal as in the audit log, e.g. key:3fb1c9...", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Number of principals to list.")] = 20,
    output_format: Format = None,
    config: ConfigFile = None,
) -> None:
    """Show what a principal has left of its quotas. Without a name, list the principals that have used most."""
    from aligner_svc.cli.quotas import access, shown

    with reported():
        name = None if principal is None else access.principal_name(principal)

        async def show_one(quotas: QuotaAccess) -> None:
            usage = await quotas.usage(name or "")
            if wants_json(output_format):
                print_json(shown.as_object(usage))
            else:
                shown.print_one(usage)

        async def list_most_used(quotas: QuotaAccess) -> None:
            usages = await quotas.most_used(limit)
            if wants_json(output_format):
                print_json([shown.as_object(usage) for usage in usages])
            elif usages:
                shown.print_table(usages)
            else:
                typer.echo(f"no principal has used anything, according to {quotas.store.place}", err=True)

        access.run(config, list_most_used if name is None else show_one)


def reset(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A principal, as `aligner quotas show` lists it.")],
    config: ConfigFile = None,
) -> None:
    """Refill all quotas of a principal and free its slots. Calls in flight take their slots again within 10 seconds."""
    from aligner_svc.cli.quotas import access

    with reported():
        name = access.principal_name(principal)

        async def work(quotas: QuotaAccess) -> None:
            used = (await quotas.usage(name)).used
            await quotas.store.reset(name)
            parts = ", ".join(f"{quota} {part:.0%} used" for quota, part in used.items() if part >= 0.005)
            quotas.record(name, f"quota reset: {parts or 'nothing was used'}")
            if parts:
                typer.echo(f"refilled all quotas of {name}; before: {parts}", err=True)
            else:
                warn(f"{name} had used nothing; is the name right? `aligner quotas show` lists the known names")

        access.run(config, work)


def set_class(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A principal, or a pattern as in the file: 'key:*'.")],
    quota_class: Annotated[
        str | None, typer.Argument(metavar="[CLASS]", help="A class defined in the file.", show_default=False)
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Remove the override: the class in the file applies again.")] = False,
    config: ConfigFile = None,
) -> None:
    """Override the class of a principal, on all servers, until the override is removed. Files are not changed.

    Takes effect within 5 seconds. What the principal has used stays used.
    """
    from aligner_svc.cli.quotas import access

    with reported():
        name = access.name_or_pattern(principal)
        if (quota_class is None) is not default:
            raise Failure("give either a class or --default", hint=f"{name} CLASS", exit_code=USAGE)

        async def put(quotas: QuotaAccess) -> None:
            target = quota_class or ""
            quotas.check_class(target)
            before = await quotas.overrides.put(name, target)
            quotas.record(name, f"class {target}, was {_was(before)}")
            typer.echo(f"{name} is in class {target}: takes effect within {EFFECTIVE_WITHIN} s", err=True)

        async def remove(quotas: QuotaAccess) -> None:
            before = await quotas.overrides.remove(name)
            if before is None:
                warn(f"{name} has no override; `aligner quotas overrides` lists all")
                return
            quotas.record(name, f"class of the file, was {_was(before)}")
            typer.echo(f"{name} is in its class of the file: takes effect within {EFFECTIVE_WITHIN} s", err=True)

        access.run(config, remove if default else put)


def overrides(output_format: Format = None, config: ConfigFile = None) -> None:
    """List the classes that were set with `aligner quotas set`."""
    from aligner_svc.cli.quotas import access, shown

    async def work(quotas: QuotaAccess) -> None:
        given = await quotas.overrides.read()
        if wants_json(output_format):
            print_json(given)
        elif given:
            shown.print_overrides(given)
        else:
            typer.echo("there are no overrides", err=True)

    with reported():
        access.run(config, work)


def _was(before: str | None) -> str:
    return "that of the file" if before is None else f"{before}, set at run time"
