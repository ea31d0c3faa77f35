"""The quota classes, Redis and audit log as `aligner quotas` uses them; their errors become Failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligner_svc.cli.failures import UNAVAILABLE, USAGE, Failure, did_you_mean, warn
from aligner_svc.cli.settings import audit_record, load_settings
from aligner_svc.config import Settings
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.calls.subject import PEER
from interceptors.quota import classes_text
from interceptors.quota.classes import QuotaClass, QuotaClasses
from interceptors.quota.overrides import OverrideStore, TooManyError, known, name_fault
from interceptors.quota.stores.base import StoreUnavailableError
from interceptors.quota.stores.redis_store import RedisStore
from interceptors.rules.patterns import PROOFS
from interceptors.rules.toml_text import RulesError, read_text

_TIMEOUT = 5.0
"""Seconds. Longer than a server's, because no call waits for it."""
_MAX_SUBJECTS = 10_000
"""Principals examined to find those that use most; takes some seconds."""
_CONCURRENT = 200


@dataclass(frozen=True, slots=True)
class Usage:
    """What a principal has left of each quota, in the quota's units; negative while in debt."""

    subject: str
    quota: QuotaClass
    overridden: bool
    """Whether the class was set at run time."""
    left: Mapping[str, float] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, float]:
        """The used fraction of each quota: 0 if unused, above 1 while in debt."""
        sizes: dict[str, float] = {bucket.name: bucket.burst for bucket in self.quota.buckets}
        sizes |= {slots.name: slots.limit for slots in self.quota.slots(stream=True)}
        return {name: max(0.0, 1 - left / sizes[name]) for name, left in self.left.items()}

    @property
    def max_used(self) -> float:
        """The used fraction of the quota that is used most."""
        return max(self.used.values(), default=0.0)


class QuotaAccess:
    """What one command works with: the classes of the file, and those in Redis."""

    def __init__(self, file: QuotaClasses, source: str, store: RedisStore, overrides: OverrideStore, record: Record) -> None:
        """`source`: where the classes of `file` come from, for messages."""
        self.store = store
        self.overrides = overrides
        self._file = file
        self._source = source
        self._record = record

    def record(self, name: str, detail: str) -> None:
        """Write a security event."""
        self._record(SecurityEvent(Event.QUOTA_CHANGED, principal=name, detail=detail))

    def check_class(self, name: str) -> None:
        """Raises Failure unless the class exists."""
        if name not in self._file.classes:
            hint = did_you_mean(name, self._file.classes)
            raise Failure(f"there is no class {name}", why=f"not in {self._source}", hint=hint, exit_code=USAGE)

    async def usage(self, subject: str) -> Usage:
        """The usage of one principal; of an unknown one, nothing is used."""
        return await self._usage(subject, *await self._classes())

    async def most_used(self, limit: int) -> list[Usage]:
        """The principals that use most of their quotas, in that order."""
        classes, overrides = await self._classes()
        subjects = sorted(await self.store.subjects(_MAX_SUBJECTS))
        if len(subjects) == _MAX_SUBJECTS:
            warn(f"there are more than {_MAX_SUBJECTS} principals; those shown use most among {_MAX_SUBJECTS} random ones")
        found: list[Usage] = []
        for start in range(0, len(subjects), _CONCURRENT):
            part = subjects[start : start + _CONCURRENT]
            found += await asyncio.gather(*(self._usage(subject, classes, overrides) for subject in part))
        return sorted(found, key=lambda usage: (-usage.max_used, usage.subject))[:limit]

    async def _classes(self) -> tuple[QuotaClasses, Mapping[str, str]]:
        """The classes in force, and the overrides among them: class by name or pattern."""
        overrides = known(await self.overrides.read(), self._file)
        return self._file.with_overrides(overrides), overrides

    async def _usage(self, subject: str, classes: QuotaClasses, overrides: Mapping[str, str]) -> Usage:
        quota, before = classes.of_subject(subject), self._file.of_subject(subject)
        shown = await self.store.show(subject, quota.buckets, quota.slots(stream=True))
        return Usage(subject, quota, subject in overrides or quota.name != before.name, shown.remaining)


def principal_name(text: str) -> str:
    """The name of one principal, as in the audit log. Raises Failure."""
    if not text.startswith((*PROOFS, PEER)) or text in {*PROOFS, PEER}:  # not repeated: it might be a key
        raise Failure(
            "not the name of a principal",
            why="a name begins with mtls:, jwt: or key:, for unauthenticated callers with peer:",
            hint="`aligner quotas show` lists the known names",
            exit_code=USAGE,
        )
    if "*" in text:
        raise Failure("a name is needed, not a pattern", why=text, hint="give one name at a time", exit_code=USAGE)
    return text


def name_or_pattern(text: str) -> str:
    """A name or pattern that may be given a class. Raises Failure."""
    fault = name_fault(text)
    if fault is not None:
        raise Failure(f"no principal can have this name: {fault[0]}", hint=fault[1], exit_code=USAGE)
    return text


def run(config: Path | None, work: Callable[[QuotaAccess], Awaitable[None]]) -> None:
    """Run `work` on the Redis of the settings. Raises Failure."""
    settings = load_settings(config).settings
    if settings.quota.redis is None:
        raise Failure(
            "there are no shared quotas to work on",
            why="quota.redis is not set: each server counts in its own memory, which no other process can see",
            hint="set ALIGNER_QUOTA__REDIS for the servers and for this command; without it, a restart resets a server's quotas",
        )
    url = settings.quota.redis.get_secret_value()
    try:
        store, overrides = RedisStore(url, timeout=_TIMEOUT), OverrideStore(url, timeout=_TIMEOUT)
        classes, source = _file_classes(settings)
    except ValueError as error:  # its text does not include the URL
        raise Failure("the settings are invalid", why=f"quota.redis: {error}", exit_code=USAGE) from None
    except RulesError as error:
        raise Failure("the quota classes are invalid", why=str(error), exit_code=USAGE) from None

    async def run_and_close(access: QuotaAccess) -> None:
        try:
            await work(access)
        finally:
            await store.close()
            await overrides.close()

    with audit_record(settings.audit) as record:
        try:
            asyncio.run(run_and_close(QuotaAccess(classes, source, store, overrides, record)))
        except TooManyError as error:
            hint = "use patterns, or the file of classes; `aligner quotas overrides` lists what is set"
            raise Failure("nothing was changed", why=str(error), hint=hint) from None
        except StoreUnavailableError as error:
            hint = "check that it is up, and that ALIGNER_QUOTA__REDIS is the same as for the servers"
            raise Failure(f"Redis ({store.place}) is unavailable", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None


def _file_classes(settings: Settings) -> tuple[QuotaClasses, str]:
    file = settings.quota.file
    if file is None:
        return classes_text.built_in(), "the built-in classes (quota.file is not set)"
    return classes_text.parse(read_text(file), str(file)), str(file)
