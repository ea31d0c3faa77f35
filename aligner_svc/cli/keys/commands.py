"""The commands of `aligner keys`."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import Failure, reported, warn
from aligner_svc.cli.keys import arguments
from aligner_svc.cli.options import ConfigFile, Format, print_json, wants_json

if TYPE_CHECKING:
    from aligner_svc.cli.keys.access import KeyAccess
    from interceptors.auth.api_keys.store import KeyRecord


class NewFormat(StrEnum):
    """How a new key is printed."""

    TEXT = "text"
    JSON = "json"


PrintNew = Annotated[NewFormat, typer.Option("--format", "-f", help="text: only the key; json: the key and its properties.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The middle part of the key, as `aligner keys list` shows it.")]


def create(
    label: Annotated[str, typer.Option(metavar="TEXT", help="Who uses the key; shown in lists and in the audit log.")],
    scope: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Scope to grant; may be repeated. Default: align.")
    ] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="Lifetime, such as 90d, 24h or 30m, or never.")] = "90d",
    output_format: PrintNew = NewFormat.TEXT,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, once, to stdout: KEY=$(aligner keys create --label me). Messages go to stderr.

    The first key makes the database, and the pepper, a secret that the servers need as well.
    """
    from aligner_svc.cli.keys import access, shown
    from interceptors.calls.security_event import Event

    with reported():
        named, granted, lifetime = arguments.label(label), arguments.scopes(scope or ["align"]), arguments.lifetime(expires)

        async def work(keys: KeyAccess) -> None:
            pepper = await keys.pepper()
            key, record = keys.new_key(pepper, named, granted, lifetime)
            await keys.store.add(record)
            keys.record(Event.KEY_CREATED, record.id, _detail(record))
            _print_new(key, record, output_format)
            typer.echo(f"made key {record.id}, which {shown.until(record.expires)}; stored in {keys.store}", err=True)

        access.run(config, work, create_database=True)


def list_keys(output_format: Format = None, config: ConfigFile = None) -> None:
    """List all keys, the oldest first."""
    from aligner_svc.cli.keys import access, shown

    async def work(keys: KeyAccess) -> None:
        records = await keys.store.list()
        if wants_json(output_format):
            print_json([shown.as_object(record, keys.now) for record in records])
        elif records:
            shown.print_table(records, keys.now)
        else:
            typer.echo(f"there are no keys in {keys.store}", err=True)

    with reported():
        access.run(config, work)


def show(key: KeyId, output_format: Format = None, config: ConfigFile = None) -> None:
    """Show the properties of one key."""
    from aligner_svc.cli.keys import access, shown

    async def work(keys: KeyAccess) -> None:
        record = await keys.find(key)
        if wants_json(output_format):
            print_json(shown.as_object(record, keys.now))
        else:
            shown.print_one(record, keys.now)

    with reported():
        access.run(config, work)


def rotate(
    key: KeyId,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key stays valid, such as 24h or 30m; 0s ends it at once.")
    ] = "24h",
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Lifetime of the new key, such as 90d, or never. Default: that of the old one."),
    ] = None,
    output_format: PrintNew = NewFormat.TEXT,
    config: ConfigFile = None,
) -> None:
    """Replace a key: make one with the same label and scopes, and end the old one after the overlap.

    The new key is printed as by `create`.
    """
    from aligner_svc.cli.keys import access, shown
    from interceptors.calls.security_event import Event

    with reported():
        overlap_seconds = arguments.seconds("--overlap", overlap, zero=True)
        given = None if expires is None else (arguments.lifetime(expires),)

        async def work(keys: KeyAccess) -> None:
            old = await keys.find(key)
            pepper = await keys.pepper()
            (lifetime,) = given or (None if old.expires is None else old.expires - old.created,)
            new, record = keys.new_key(pepper, old.label, old.scopes, lifetime)
            if not await keys.store.rotate(old.id, record, now=keys.now, expires=keys.now + overlap_seconds):
                old = await keys.find(old.id)
                raise _not_rotated(old, shown.state(old, keys.now))
            keys.record(Event.KEY_CREATED, record.id, _detail(record))
            keys.record(Event.KEY_ROTATED, old.id, f"{_detail(old)}, replaced by {record.id}")
            _print_new(new, record, output_format)
            old = await keys.find(old.id)
            old_until = f"the old one, {old.id}, {shown.until(old.expires)}"
            typer.echo(f"made key {record.id}, which {shown.until(record.expires)}; {old_until}", err=True)

        access.run(config, work)


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID|-", help="The ID of the key; - reads the whole key from stdin.")],
    config: ConfigFile = None,
) -> None:
    """Revoke a key for good. Servers refuse it within 5 seconds. Revoking it again is not a failure."""
    from aligner_svc.cli.keys import access
    from interceptors.calls.security_event import Event

    async def work(keys: KeyAccess) -> None:
        record = await keys.find(key)
        if await keys.store.revoke(record.id, keys.now):
            keys.record(Event.KEY_REVOKED, record.id, _detail(record))
            typer.echo(f"revoked key {record.id}: servers refuse it within 5 s", err=True)
        else:
            typer.echo(f"key {record.id} was revoked before", err=True)

    with reported():
        access.run(config, work)


def _detail(record: KeyRecord) -> str:
    return f"label {record.label!r}, scopes {' '.join(sorted(record.scopes))}"


def _print_new(key: str, record: KeyRecord, chosen: NewFormat) -> None:
    """Print a new key, the only time that it is shown. Raises Failure."""
    from aligner_svc.cli.keys import shown

    try:
        if chosen is NewFormat.JSON:
            print_json({"key": key} | shown.as_object(record, time.time()))
        else:
            typer.echo(key)
        sys.stdout.flush()
    except OSError as error:
        raise Failure(
            f"key {record.id} was made but could not be printed",
            why=error.strerror or "stdout is closed",
            hint=f"aligner keys revoke {record.id}, and make another",
        ) from None
    if sys.stdout.isatty():
        warn("this is the only time that the key is shown")


def _not_rotated(old: KeyRecord, state: str) -> Failure:
    create = "make a new key with `aligner keys create`"
    why, hint = {
        "revoked": ("it is revoked", create),
        "expired": ("it has expired", create),
        "rotated": (f"it was rotated before, to {old.replaced_by}", f"aligner keys rotate {old.replaced_by}"),
    }.get(state, ("it was changed at the same time", "try again"))
    return Failure(f"key {old.id} cannot be rotated", why=why, hint=hint)
