"""The key database, pepper and audit log as `aligner keys` uses them; their errors become Failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import typer

from aligner_svc.cli.failures import UNAVAILABLE, USAGE, Failure, warn
from aligner_svc.cli.keys import arguments
from aligner_svc.cli.settings import audit_record, load_settings
from aligner_svc.config.security import KeySettings
from aligner_svc.wiring.api_keys import PepperAbsentError, PepperError, make_pepper, open_store, open_to_others, read_pepper
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.store import DatabaseUrlError, KeyRecord, KeyStore, KeyStoreError
from interceptors.calls.security_event import Event, Record, SecurityEvent

_CONNECT_TIMEOUT = 5.0
"""Seconds. Longer than a server's, because no call waits for it."""


class KeyAccess:
    """What one command works with. `now` is the Unix time at which it began."""

    def __init__(self, settings: KeySettings, store: KeyStore, record: Record) -> None:
        self.store = store
        self.now = time.time()
        self._settings = settings
        self._record = record

    def record(self, event: Event, key_id: str, detail: str) -> None:
        """Write a security event."""
        self._record(SecurityEvent(event, principal=f"key:{key_id}", detail=detail))

    async def find(self, typed: str) -> KeyRecord:
        """Find the key given on the command line. Raises Failure."""
        key_id = arguments.key_id(typed, self._settings.prefix)
        record = await self.store.find(key_id)
        if record is None:
            raise Failure(f"there is no key {key_id}", why=f"not in {self.store}", hint="`aligner keys list` lists all keys")
        return record

    async def pepper(self) -> bytes:
        """The pepper of the keys in use; makes one if there is none and no key is in use. Raises Failure, PepperError."""
        in_use = [record for record in await self.store.list() if record.is_live(self.now)]
        count = f"{len(in_use)} {'key' if len(in_use) == 1 else 'keys'} in {self.store}"
        try:
            pepper = read_pepper(self._settings)
        except PepperAbsentError as error:
            if in_use:
                raise Failure(
                    "the pepper is missing, and a new one would make the keys in use invalid",
                    why=f"{count} were made with it; {error}",
                    hint="restore it; if it is lost, revoke those keys first",
                ) from None
            pepper = make_pepper(self._settings)
            file = self._settings.pepper_file.absolute()
            typer.echo(f"made the pepper {file}: servers need the same one; back it up", err=True)
        if any(record.pepper != api_key.pepper_mark(pepper) for record in in_use):
            raise Failure(
                "the keys in use were made with another pepper",
                why=f"{count}; a server has one pepper and could not check both kinds of keys",
                hint="configure the pepper they were made with; if it is lost, revoke those keys first",
            )
        return pepper

    def new_key(self, pepper: bytes, label: str, scopes: frozenset[str], lifetime: float | None) -> tuple[str, KeyRecord]:
        """Make a key with a `lifetime` in seconds. Returns the whole key, and the record to store."""
        key = api_key.new(self._settings.prefix)
        record = KeyRecord(
            id=key.id,
            digest=api_key.digest(pepper, key),
            pepper=api_key.pepper_mark(pepper),
            label=label,
            scopes=scopes,
            created=self.now,
            expires=None if lifetime is None else self.now + lifetime,
        )
        return key.reveal(), record


def run(config: Path | None, work: Callable[[KeyAccess], Awaitable[None]], *, create_database: bool = False) -> None:
    """Run `work` on the database of the settings. `create_database`: make it if it is a file that is absent. Raises Failure."""
    settings = load_settings(config).settings
    pepper_file = settings.keys.pepper_file
    if settings.keys.pepper is None and open_to_others(pepper_file):
        warn(f"every user of this machine can read {pepper_file.absolute()}: chmod 600")
    with audit_record(settings.audit) as record:
        try:
            asyncio.run(_run(settings.keys, record, work, create_database))
        except DatabaseUrlError as error:
            raise Failure("the settings are invalid", why=f"keys.database: {error}", exit_code=USAGE) from None
        except PepperError as error:
            raise Failure("the pepper cannot be used", why=str(error)) from None


async def _run(
    settings: KeySettings, record: Record, work: Callable[[KeyAccess], Awaitable[None]], create_database: bool
) -> None:
    store = open_store(settings, connect_timeout=_CONNECT_TIMEOUT)
    try:
        file = store.database.sqlite_file
        if file is not None and not create_database and not file.exists():
            raise Failure(
                "there is no key database",
                why=f"{file} does not exist",
                hint="`aligner keys create` makes it; for another one set ALIGNER_KEYS__DATABASE (a path, or postgresql://...)",
            )
        await store.migrate()
        await work(KeyAccess(settings, store, record))
    except KeyStoreError as error:
        hint = "check ALIGNER_KEYS__DATABASE, or try again"
        raise Failure(f"the key database ({store}) is unavailable", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None
    finally:
        await store.close()
