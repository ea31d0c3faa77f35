"""Builds the guards that protect the server itself: quotas, overload, abuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol

from aligner_svc.config import Settings
from aligner_svc.engines.base import Capacity
from aligner_svc.errors import StartError
from aligner_svc.rpc.request_facts import AudioEstimate
from aligner_svc.rpc.services import EXEMPT, STREAMS
from interceptors import Call, Record
from interceptors.abuse.blocks import SharedBlock
from interceptors.abuse.interceptor import Abuse, AbuseRules
from interceptors.overload.admission import Priority
from interceptors.overload.interceptor import Overload
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.overload.pressure import Groups, Pressure
from interceptors.overload.upload_memory import UploadMemory
from interceptors.quota import classes_text
from interceptors.quota.classes import QuotaClasses
from interceptors.quota.interceptor import Quota
from interceptors.quota.stores.base import QuotaStore
from interceptors.quota.stores.fallback import FallbackStore, SharedStore
from interceptors.quota.stores.memory import MemoryStore
from interceptors.rules.file import RulesFile
from interceptors.rules.toml_text import RulesError

_PRIORITIES = {"low": Priority.LOW, "normal": Priority.NORMAL, "high": Priority.HIGH}


class Part(Protocol):
    """Starts and closes with the server; `close` is idempotent."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Siblings:
    """The other processes of a server of several.

    `count`: with this one. `store`: where all of them count quotas. `block`: tells the others of a block.
    """

    count: int
    store: SharedStore
    block: Callable[[SharedBlock], None]


@dataclass(frozen=True, slots=True)
class Protection:
    """The guards, None where not asked for, and the `parts` to start and close with the server."""

    quota: Quota | None
    store: QuotaStore | None
    overload: Overload
    abuse: Abuse | None
    parts: tuple[Part, ...]


def build_protection(settings: Settings, capacity: Capacity, record: Record, siblings: Siblings | None = None) -> Protection:
    """`capacity`: of the engine. Raises StartError."""
    quota, store, parts = _quota(settings, record, siblings)
    pressure = Pressure(Groups()) if settings.overload.pressure else None
    # Open up to the engine's own queue at first: what that holds is not too much until it was seen to be.
    highest = max(capacity.lowest, capacity.at_once + settings.engine.queue)
    rules = LimitRules(lowest=capacity.lowest, highest=highest, initial=highest)
    limit = AdaptiveLimit(rules) if settings.overload.adaptive else None

    def expected() -> float:
        """How long calls waited lately, while the server is busy; 0 when it is not, as that time then means nothing."""
        crowded = limit is not None and overload.counts.at_work >= rules.lowest
        return limit.typical_wait if limit is not None and crowded else 0.0

    largest = settings.limits.stream_audio_bytes
    overload = Overload(
        limit,
        long_limit=AdaptiveLimit(rules) if settings.overload.adaptive else None,
        exempt=EXEMPT,
        priority=_priority(quota),
        expected_seconds=expected,
        pressure=pressure,
        record=record,
        memory=UploadMemory(shared=(settings.stream.concurrent - 1) * largest, reserve=largest),
        uploads=STREAMS,
        arrivals=settings.overload.unfinished,
        whole_reads=settings.overload.reads,
    )
    if pressure is not None:
        parts = (*parts, pressure)
    abuse, blocks = _abuse(settings, record, siblings)
    return Protection(quota, store, overload, abuse, (*parts, *blocks))


def _quota(
    settings: Settings, record: Record, siblings: Siblings | None
) -> tuple[Quota | None, QuotaStore | None, tuple[Part, ...]]:
    wanted = settings.quota
    if settings.server.profile == "dev" and wanted.file is None:
        return None, None, ()
    try:
        file = RulesFile(wanted.file, classes_text.parse, record, settings.tls.reload_every) if wanted.file is not None else None
    except RulesError as error:
        raise StartError(str(error)) from None
    default = classes_text.built_in()
    store = _store(settings, siblings)
    classes: Callable[[], QuotaClasses] = (lambda: file.current) if file is not None else (lambda: default)
    files: tuple[Part, ...] = (file,) if file is not None else ()
    if wanted.redis is not None:
        from interceptors.quota.overrides import Overrides, OverrideStore  # noqa: PLC0415

        overrides = Overrides(OverrideStore(wanted.redis.get_secret_value()), classes, record)
        classes, files = (lambda: overrides.current), (*files, overrides)
    quota = Quota(store, classes, estimate=AudioEstimate, streams=STREAMS, exempt=EXEMPT)
    return quota, store, (quota, *files)


def _store(settings: Settings, siblings: Siblings | None) -> QuotaStore:
    url, processes = settings.quota.redis, siblings.count if siblings is not None else 1
    if url is None:
        return FallbackStore(siblings.store, MemoryStore(), processes) if siblings is not None else MemoryStore()
    from interceptors.quota.stores.redis_store import RedisStore  # noqa: PLC0415 - redis is imported where it is used alone

    try:
        shared = RedisStore(url.get_secret_value())
    except ValueError as error:
        raise StartError(f"quota.redis: {error}") from None
    return FallbackStore(shared, MemoryStore(), settings.quota.replicas * processes)


def _priority(quota: Quota | None) -> Callable[[Call], Priority]:
    if quota is None:
        return lambda call: Priority.NORMAL
    return lambda call: _PRIORITIES[quota.class_of(call).priority]


def _abuse(settings: Settings, record: Record, siblings: Siblings | None) -> tuple[Abuse | None, tuple[Part, ...]]:
    wanted, url = settings.abuse, settings.quota.redis
    if settings.server.profile == "dev" or not wanted.enabled:
        return None, ()
    share: Callable[[SharedBlock], None] = siblings.block if siblings is not None else lambda block: None
    shared = None
    if url is not None:
        from aligner_svc.wiring.shared import RedisBlocks  # noqa: PLC0415 - redis is imported where it is used alone

        shared = RedisBlocks(url.get_secret_value(), seconds=wanted.longest_block_seconds)
        share = shared.post
    try:
        rules = AbuseRules(
            calls_per_minute=wanted.calls_per_minute,
            failures_per_minute=wanted.failures_per_minute,
            invalid_per_minute=wanted.invalid_per_minute,
            block_seconds=wanted.block_seconds,
            max_block_seconds=wanted.longest_block_seconds,
        )
        abuse = Abuse(
            rules,
            exempt=EXEMPT,
            record=record,
            trusted=[ip_network(text) for text in wanted.trusted],
            shadow=wanted.shadow,
            entries=wanted.entries,
            share=share,
        )
    except ValueError as error:
        raise StartError(f"abuse: {error}") from None
    if shared is None:
        return abuse, ()
    shared.adopt = abuse.adopt
    return abuse, (shared,)
