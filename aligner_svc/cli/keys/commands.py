"""The commands of `aligner keys`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for sqlalchemy

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import Failure, reported, warn
from aligner_svc.cli.keys import arguments, shown

if TYPE_CHECKING:
    from aligner_svc.cli.keys.access import KeyAccess
    from interceptors.auth.api_keys.store import KeyRecord


class NewFormat(StrEnum):
    """How a new key is printed."""

    TEXT = "text"
    JSON = "json"


class ListFormat(StrEnum):
    """How keys are shown."""

    TABLE = "table"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML settings; default aligner.toml, if there.")]
PrintNew = Annotated[NewFormat, typer.Option("--format", "-f", help="text: the key and nothing else on stdout.")]
PrintList = Annotated[ListFormat | None, typer.Option("--format", "-f", help="Default: table on a terminal, json elsewhere.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The middle part of the key, as `aligner keys list` shows it.")]


def create(
    label: Annotated[str, typer.Option(metavar="TEXT", help="Whose key it is; shown in lists and in the audit log.")],
    scope: Annotated[list[str] | None, typer.Option(metavar="NAME", help="What it may do; may be repeated. [align]")] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="90d, 24h, 30m from now, or never.")] = "90d",
    output_format: PrintNew = NewFormat.TEXT,
    config: Config = None,
) -> None:
    """Make a key. It is printed once, on stdout: KEY=$(aligner keys create --label me). Everything else goes to stderr.

    The first one makes the database and the pepper, a secret that servers need as well.

    Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 69 the key database is out of reach.
    """
    from aligner_svc.cli.keys.access import run
    from interceptors.calls.security_event import Event

    with reported():
        named, granted, lifetime = arguments.label(label), arguments.scopes(scope or ["align"]), arguments.lifetime(expires)

        async def work(access: KeyAccess) -> None:
            pepper = await access.pepper()
            key, record = access.new_key(pepper, named, granted, lifetime)
            await access.store.add(record)
            access.record(Event.KEY_CREATED, record.id, _detail(record))
            _hand_over(key, record, output_format)
            typer.echo(f"key {record.id} is made: {shown.until(record.expires)}; kept in {access.store}", err=True)

        run(config, work, makes=True)


def list_keys(output_format: PrintList = None, config: Config = None) -> None:
    """List all keys, the oldest first.

    Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 69 the key database is out of reach.
    """
    from aligner_svc.cli.keys.access import run

    with reported():

        async def work(access: KeyAccess) -> None:
            records = await access.store.list()
            if _as_json(output_format):
                shown.print_json([shown.as_object(record, access.now) for record in records])
            elif records:
                shown.print_table(records, access.now)
            else:
                typer.echo(f"there are no keys in {access.store}", err=True)

        run(config, work)


def show(key: KeyId, output_format: PrintList = None, config: Config = None) -> None:
    """Show what is known of one key.

    Exit codes: 0 done; 1 failed, or there is none of that id; 2 wrong usage or settings; 69 the database is out of reach.
    """
    from aligner_svc.cli.keys.access import run

    with reported():

        async def work(access: KeyAccess) -> None:
            record = await access.find(key)
            if _as_json(output_format):
                shown.print_json(shown.as_object(record, access.now))
            else:
                shown.print_one(record, access.now)

        run(config, work)


def rotate(
    key: KeyId,
    overlap: Annotated[str, typer.Option(metavar="TIME", help="How long the old key goes on: 24h, 30m; 0s: not at all.")] = "24h",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of the new key: 90d, never. Default: as long as the old one was given.")
    ] = None,
    output_format: PrintNew = NewFormat.TEXT,
    config: Config = None,
) -> None:
    """Make a key with the label and scopes of another, which ends when the overlap is over. Printed as by `create`.

    Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 69 the key database is out of reach.
    """
    from aligner_svc.cli.keys.access import run
    from interceptors.calls.security_event import Event

    with reported():
        both = arguments.seconds("--overlap", overlap, zero=True)
        given = None if expires is None else (arguments.lifetime(expires),)

        async def work(access: KeyAccess) -> None:
            old = await access.find(key)
            pepper = await access.pepper()
            (lifetime,) = given or (None if old.expires is None else old.expires - old.created,)
            new, record = access.new_key(pepper, old.label, old.scopes, lifetime)
            if not await access.store.rotate(old.id, record, now=access.now, expires=access.now + both):
                raise _not_rotated(await access.find(old.id), access.now)
            access.record(Event.KEY_CREATED, record.id, _detail(record))
            access.record(Event.KEY_ROTATED, old.id, f"{_detail(old)}, replaced by {record.id}")
            _hand_over(new, record, output_format)
            ends = await access.find(old.id)
            typer.echo(
                f"key {record.id} is made: {shown.until(record.expires)}; the old one, {old.id}, {shown.until(ends.expires)}",
                err=True,
            )

        run(config, work)


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID|-", help="The key's id; -: the whole key is read from stdin.")],
    config: Config = None,
) -> None:
    """End a key for good. Servers refuse it within 5 seconds.

    Exit codes: 0 it is revoked, now or before; 1 failed, or there is none of that id; 2 wrong usage or settings; 69 the
    key database is out of reach.
    """
    from aligner_svc.cli.keys.access import run
    from interceptors.calls.security_event import Event

    with reported():

        async def work(access: KeyAccess) -> None:
            record = await access.find(key)
            if await access.store.revoke(record.id, access.now):
                access.record(Event.KEY_REVOKED, record.id, _detail(record))
                typer.echo(f"key {record.id} is revoked: servers refuse it within 5 s", err=True)
            else:
                typer.echo(f"key {record.id} was revoked before", err=True)

        run(config, work)


def _detail(record: KeyRecord) -> str:
    return f"label {record.label!r}, scopes {' '.join(sorted(record.scopes))}"


def _as_json(chosen: ListFormat | None) -> bool:
    return not sys.stdout.isatty() if chosen is None else chosen is ListFormat.JSON


def _hand_over(key: str, record: KeyRecord, chosen: NewFormat) -> None:
    """The one time the secret is seen. Raises Failure."""
    try:
        if chosen is NewFormat.JSON:
            shown.print_json({"key": key} | shown.as_object(record, time.time()))
        else:
            typer.echo(key)
        sys.stdout.flush()
    except OSError as error:
        raise Failure(
            f"key {record.id} was made, and could not be printed",
            why=error.strerror or "stdout is closed",
            hint=f"aligner keys revoke {record.id}, and make another",
        ) from None
    if sys.stdout.isatty():
        warn("this is the only time the key is shown")


def _not_rotated(old: KeyRecord, now: float) -> Failure:
    create = "`aligner keys create` makes one from nothing"
    why, hint = {
        "revoked": ("it is revoked", create),
        "expired": ("it has expired", create),
        "rotated": (f"it was before, to {old.replaced_by}", f"aligner keys rotate {old.replaced_by}"),
    }.get(shown.state(old, now), ("it changed meanwhile", "try again"))
    return Failure(f"key {old.id} cannot be rotated", why=why, hint=hint)
