"""What the commands of `aligner keys` work with: settings, store, pepper and audit log; and their faults as failures."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import typer

from aligner_svc.cli.failures import UNAVAILABLE, USAGE, Failure, from_settings, warn
from aligner_svc.cli.keys import arguments
from aligner_svc.config import Settings
from aligner_svc.config.report import SettingsProblem, load, unknown_variables
from aligner_svc.config.security import KeySettings
from aligner_svc.telemetry.audit.log import AuditError, open_audit
from aligner_svc.wiring.api_keys import PepperAbsentError, PepperError, make_pepper, open_store, open_to_others, read_pepper
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.store import DatabaseUrlError, KeyRecord, KeyStore, KeyStoreError
from interceptors.calls.security_event import Event, Record, SecurityEvent

_CONNECT_TIMEOUT = 5.0
"""Seconds; a person waits longer than a call does."""


class KeyAccess:
    """One command's. `now` is the Unix time at which it began."""

    def __init__(self, settings: KeySettings, store: KeyStore, record: Record) -> None:
        self.store = store
        self.now = time.time()
        self._settings = settings
        self._record = record

    def record(self, event: Event, key_id: str, detail: str) -> None:
        """Leave a security event."""
        self._record(SecurityEvent(event, principal=f"key:{key_id}", detail=detail))

    async def find(self, typed: str) -> KeyRecord:
        """The key that was named. Raises Failure."""
        key_id = arguments.key_id(typed, self._settings.prefix)
        record = await self.store.find(key_id)
        if record is None:
            raise Failure(f"there is no key {key_id}", why=f"not in {self.store}", hint="`aligner keys list` shows all")
        return record

    async def pepper(self) -> bytes:
        """The one all keys in use were made with; a new one if none are. Raises Failure, PepperError, KeyStoreError."""
        in_use = [record for record in await self.store.list() if record.is_live(self.now)]
        count = f"{len(in_use)} {'key' if len(in_use) == 1 else 'keys'} in {self.store}"
        try:
            pepper = read_pepper(self._settings)
        except PepperAbsentError as error:
            if in_use:
                raise Failure(
                    "the pepper is missing, and a new one would make keys in use invalid",
                    why=f"{count} were made with one; {error}",
                    hint="put it back; if it is lost, revoke those keys first",
                ) from None
            pepper = make_pepper(self._settings)
            typer.echo(
                f"made the pepper {self._settings.pepper_file.absolute()}: servers need the same one; back it up", err=True
            )
        if any(record.pepper != api_key.pepper_mark(pepper) for record in in_use):
            raise Failure(
                "this is another pepper than the keys in use were made with",
                why=f"{count}; one server has one pepper, and could not check both",
                hint="set the pepper they were made with; if it is lost, revoke those keys first",
            )
        return pepper

    def new_key(self, pepper: bytes, label: str, scopes: frozenset[str], lifetime: float | None) -> tuple[str, KeyRecord]:
        """The whole key, and what is stored of it. `lifetime` in seconds."""
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


def run(config: Path | None, work: Callable[[KeyAccess], Awaitable[None]], *, makes: bool = False) -> None:
    """`work`, on the database the settings name; `makes` it if it is a file that is not there. Raises Failure."""
    settings = _settings(config)
    _warn_of_rights(settings.keys)
    try:
        # The log first: what cannot leave a record is not done. Not to stdout, where a new key stands alone.
        audit = open_audit(settings.audit, stream=sys.stderr)
    except AuditError as error:
        raise Failure("nothing was done", why=str(error)) from None
    try:
        asyncio.run(_run(settings.keys, audit.record, work, makes))
    except DatabaseUrlError as error:
        raise Failure("the settings cannot be used", why=f"keys.database: {error}", exit_code=USAGE) from None
    except PepperError as error:
        raise Failure("the pepper cannot be used", why=str(error)) from None
    finally:
        audit.close()


async def _run(settings: KeySettings, record: Record, work: Callable[[KeyAccess], Awaitable[None]], makes: bool) -> None:
    store = open_store(settings, connect_timeout=_CONNECT_TIMEOUT)
    try:
        file = store.database.sqlite_file
        if file is not None and not makes and not file.exists():
            raise Failure(
                "there is no key database",
                why=f"{file} is not there",
                hint="`aligner keys create` makes it; elsewhere: ALIGNER_KEYS__DATABASE=sqlite:////FILE or postgresql://...",
            )
        await store.migrate()
        await work(KeyAccess(settings, store, record))
    except KeyStoreError as error:
        hint = "set ALIGNER_KEYS__DATABASE to where keys are kept, or try again"
        raise Failure(f"the key database ({store}) cannot be used", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None
    finally:
        await store.close()


def _settings(config: Path | None) -> Settings:
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)
    for unknown in unknown_variables(Settings):
        warn(str(unknown))
    try:
        return load(Settings).settings
    except SettingsProblem as problem:
        raise from_settings(problem) from None


def _warn_of_rights(settings: KeySettings) -> None:
    if settings.pepper is None and open_to_others(settings.pepper_file):
        warn(f"every user of this machine may read {settings.pepper_file.absolute()}: chmod 600")
