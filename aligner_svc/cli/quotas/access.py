"""What the commands of `aligner quotas` work with: settings, classes, Redis and audit log; and their faults as failures."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligner_svc.cli.failures import UNAVAILABLE, USAGE, Failure, from_settings, warn
from aligner_svc.config import Settings
from aligner_svc.config.report import SettingsProblem, load, unknown_variables
from aligner_svc.telemetry.audit.log import AuditError, open_audit
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.quota import classes_text
from interceptors.quota.classes import PEER, QuotaClass, QuotaClasses
from interceptors.quota.overrides import OverrideStore, TooManyError, known, name_fault
from interceptors.quota.stores.base import StoreUnavailableError
from interceptors.quota.stores.redis_store import RedisStore
from interceptors.rules.patterns import PROOFS
from interceptors.rules.toml_text import RulesError, read_text

_TIMEOUT = 5.0
"""Seconds; a person waits longer than a call does."""
_SUBJECTS = 10_000
"""Callers that are looked at to find those who use most: some seconds' work."""
_TOGETHER = 200


@dataclass(frozen=True, slots=True)
class Usage:
    """What a caller has left, in units by quota; below 0 is a debt."""

    subject: str
    quota: QuotaClass
    given: bool
    """Whether the class is one that was set at run time."""
    left: Mapping[str, float] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, float]:
        """Parts of what each quota holds, 0 for none of it; above 1 with a debt."""
        holds: dict[str, float] = {bucket.name: bucket.burst for bucket in self.quota.buckets}
        holds |= {slots.name: slots.limit for slots in self.quota.slots(stream=True)}
        return {name: max(0.0, 1 - left / holds[name]) for name, left in self.left.items()}

    @property
    def most(self) -> float:
        """Of the quota it has used most of."""
        return max(self.used.values(), default=0.0)


class QuotaAccess:
    """One command's."""

    def __init__(self, file: QuotaClasses, source: str, store: RedisStore, overrides: OverrideStore, record: Record) -> None:
        """`file`: the classes, `source` where they are from."""
        self.store = store
        self.overrides = overrides
        self._file = file
        self._source = source
        self._record = record

    def record(self, name: str, detail: str) -> None:
        """Leave a security event."""
        self._record(SecurityEvent(Event.QUOTA_CHANGED, principal=name, detail=detail))

    def check_class(self, name: str) -> None:
        """Raises Failure unless there is that class."""
        if name in self._file.classes:
            return
        near = difflib.get_close_matches(name, list(self._file.classes), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._file.classes)}; add it to the file of classes"
        raise Failure(f"there is no class {name}", why=f"not in {self._source}", hint=hint, exit_code=USAGE)

    async def classes(self) -> tuple[QuotaClasses, Mapping[str, str]]:
        """Those in force, and what was set at run time, by name, of what this file has a class for."""
        given = known(await self.overrides.read(), self._file)
        return self._file.with_overrides(given), given

    async def usage(self, subject: str) -> Usage:
        """Of one caller, whether anything is known of it or not."""
        classes, given = await self.classes()
        return await self._usage(subject, classes, given)

    async def most_used(self, limit: int) -> list[Usage]:
        """Of those that use most, these first."""
        classes, given = await self.classes()
        subjects = sorted(await self.store.subjects(_SUBJECTS))
        if len(subjects) == _SUBJECTS:
            warn(f"more than {_SUBJECTS} callers are known; those shown use most of {_SUBJECTS}, picked at random")
        found: list[Usage] = []
        for start in range(0, len(subjects), _TOGETHER):
            part = subjects[start : start + _TOGETHER]
            found += await asyncio.gather(*(self._usage(subject, classes, given) for subject in part))
        return sorted(found, key=lambda usage: (-usage.most, usage.subject))[:limit]

    async def _usage(self, subject: str, classes: QuotaClasses, given: Mapping[str, str]) -> Usage:
        quota, before = classes.of_subject(subject), self._file.of_subject(subject)
        shown = await self.store.show(subject, quota.buckets, quota.slots(stream=True))
        return Usage(subject, quota, subject in given or quota.name != before.name, shown.remaining)


def subject(text: str) -> str:
    """The name of one caller, as the audit log has it. Raises Failure."""
    if not text.startswith((*PROOFS, PEER)) or text in {*PROOFS, PEER}:  # not repeated: it might be a key
        raise Failure(
            "not the name of a caller",
            why="a name begins with mtls:, jwt: or key:, that of a caller without one with peer:",
            hint="`aligner quotas show` lists those that are known",
            exit_code=USAGE,
        )
    if "*" in text:
        raise Failure("a caller is needed, and not a pattern", why=text, hint="name them one by one", exit_code=USAGE)
    return text


def name_or_pattern(text: str) -> str:
    """What may be put in a class. Raises Failure."""
    fault = name_fault(text)
    if fault is not None:
        raise Failure(f"nobody can be named so: {fault[0]}", hint=fault[1], exit_code=USAGE)
    return text


def run(config: Path | None, work: Callable[[QuotaAccess], Awaitable[None]]) -> None:
    """`work`, on the Redis the settings name. Raises Failure."""
    settings = _settings(config)
    url = settings.quota.redis
    if url is None:
        raise Failure(
            "there is nothing that this command could ask",
            why="quota.redis is not set: each server counts in its own memory, which no other process sees",
            hint="set ALIGNER_QUOTA__REDIS for the servers and here; without it, start a server again to fill its quotas",
        )
    try:
        store = RedisStore(url.get_secret_value(), timeout=_TIMEOUT)
        overrides = OverrideStore(url.get_secret_value(), timeout=_TIMEOUT)
        classes, source = _classes(settings)
    except ValueError as error:  # its text is without the URL
        raise Failure("the settings cannot be used", why=f"quota.redis: {error}", exit_code=USAGE) from None
    except RulesError as error:
        raise Failure("the classes cannot be used", why=str(error), exit_code=USAGE) from None
    try:
        # The log first: what cannot leave a record is not done. Not to stdout, which is for what is shown.
        audit = open_audit(settings.audit, stream=sys.stderr)
    except AuditError as error:
        raise Failure("nothing was done", why=str(error)) from None
    try:
        asyncio.run(_run(QuotaAccess(classes, source, store, overrides, audit.record), work))
    except TooManyError as error:
        hint = "give classes by patterns, or in the file; `aligner quotas overrides` lists them"
        raise Failure("nothing was done", why=str(error), hint=hint) from None
    except StoreUnavailableError as error:
        hint = "is it up, and ALIGNER_QUOTA__REDIS as the servers have it?"
        raise Failure(f"Redis ({store.place}) cannot be used", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None
    finally:
        audit.close()


async def _run(access: QuotaAccess, work: Callable[[QuotaAccess], Awaitable[None]]) -> None:
    try:
        await work(access)
    finally:
        await access.store.close()
        await access.overrides.close()


def _classes(settings: Settings) -> tuple[QuotaClasses, str]:
    file = settings.quota.file
    if file is None:
        return classes_text.built_in(), "the built-in classes (quota.file is not set)"
    return classes_text.parse(read_text(file), str(file)), str(file)


def _settings(config: Path | None) -> Settings:
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)
    for unknown in unknown_variables(Settings):
        warn(str(unknown))
    try:
        return load(Settings).settings
    except SettingsProblem as problem:
        raise from_settings(problem) from None
