"""What a running server finds of itself: whether it takes calls, and what it does without, in the doctor's words.

It is ready exactly when the health service says SERVING: two answers to one question would send a load balancer and an
orchestrator different ways. What is away and does not stop that is a finding beside it. `warn`: calls go on by design, as
with the quotas' store, whose share each server then counts by itself. `fail`: some calls are refused until it is back, as
tokens of an issuer without keys, or uploads while nobody can scan them. To take the server out of service for these would
turn refusals that say why and when to come back into no answer at all, on all replicas at the same time, for what they
share is away for each of them.

Nothing is asked for it: it says what the parts know anyway, so that a probe costs a tenth of a millisecond.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aligner_svc.config import Settings
from aligner_svc.health import phrases as words
from aligner_svc.health.findings import Finding, Severity, listed, presentable, unchecked
from aligner_svc.telemetry.logs.redaction import Redactor
from interceptors.quota.stores.redis_client import place

if TYPE_CHECKING:
    from aligner_svc.telemetry.metrics import Sources

log = logging.getLogger("aligner_svc.doctor.readiness")


class Readiness:
    """`sources`: the parts, as the metrics have them. `keys_unavailable`: no connection to the key database; None: none used.

    Belongs to the event loop of the parts. `now`: Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        *,
        keys_unavailable: Callable[[], bool] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._keys_unavailable = keys_unavailable
        self._now = now
        self._redactor = Redactor((settings.keys.prefix,))
        self._broken: set[str] = set()
        self._checks: Final[Mapping[str, Callable[[], Iterator[Finding]]]] = {
            "server": self._server,
            "engine": self._engine,
            "workers": self._workers,
            "tls": self._tls,
            "jwks": self._jwks,
            "keys": self._keys,
            "redis": self._redis,
            "clamd": self._clamd,
        }

    def findings(self) -> list[Finding]:
        """In this order: the server, its engine, what its guards depend on. What the settings do not ask for is left out."""
        found: list[Finding] = []
        for name, check in self._checks.items():
            try:
                found += check()
            except Exception as error:
                if name not in self._broken:  # once, not at every probe
                    self._broken.add(name)
                    log.exception("readiness: %s cannot be read", name)
                found.append(unchecked(name, error))
        return presentable(found, self._redactor)

    def report(self) -> tuple[bool, str]:
        """Whether it is ready, and as JSON {"ready": bool, "findings": [{"check", "state", "said", "hint"}, ...]}."""
        ready = self._ready()
        told = {"ready": ready, "findings": listed(self.findings())}
        return ready, json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def _ready(self) -> bool:
        return self._sources.ready is not None and self._sources.ready()

    def _server(self) -> Iterator[Finding]:
        if self._ready():
            yield Finding("server", Severity.OK, "it is SERVING")
        else:
            yield Finding("server", Severity.FAIL, "it is NOT_SERVING", words.NOT_SERVING)

    def _engine(self) -> Iterator[Finding]:
        if self._sources.engine is None:
            return
        name, failed = self._sources.build.get("engine", "the engine"), self._sources.engine().failed
        yield Finding("engine", Severity.OK, f"{name}: in service") if failed is None else words.engine_failed(name, failed)

    def _workers(self) -> Iterator[Finding]:
        pools = [(pool.name, len(pool.pids), pool.size) for pool in self._sources.pools]
        missing = [words.workers_missing(*pool) for pool in pools if pool[1] < pool[2]]
        if pools and not missing:
            yield Finding("workers", Severity.OK, ", ".join(f"{name}: {up} worker processes" for name, up, _ in pools))
        yield from missing

    def _tls(self) -> Iterator[Finding]:
        if self._sources.certificate_expires is not None:
            yield words.certificate_ends(self._sources.certificate_expires() - self._now())

    def _jwks(self) -> Iterator[Finding]:
        sources = self._sources.key_sources
        for issuer, keys in sources.items():
            age, why = keys.age_seconds, keys.last_error or "they have not come yet"
            if age is None:
                yield words.issuer_keys_never_got(issuer, why)
            elif keys.trouble or keys.last_error:
                yield words.issuer_keys_old(issuer, why, age, stale=bool(keys.trouble))
            else:
                yield Finding("jwks", Severity.OK, f"{issuer}: its keys are from {words.span(age)} ago")

    def _keys(self) -> Iterator[Finding]:
        if self._keys_unavailable is None:
            return
        from interceptors.auth.api_keys.database import Database  # noqa: PLC0415 - there already where there are API keys

        database = str(Database(self._settings.keys.database.get_secret_value()))
        if self._keys_unavailable():
            yield words.key_database_unavailable(database, "it does not answer, and is tried every second")
        else:
            yield Finding("keys", Severity.OK, f"{database}: it answers")

    def _redis(self) -> Iterator[Finding]:
        store, url = self._sources.quota_store, self._settings.quota.redis
        if store is None or url is None:
            return
        where = place(url.get_secret_value())
        if store.degraded:
            yield replace(
                words.redis_unavailable(where), state=Severity.WARN
            )  # by design: see interceptors.quota.stores.fallback
        else:
            yield Finding("redis", Severity.OK, f"{where}: it answers")

    def _clamd(self) -> Iterator[Finding]:
        wanted = self._settings.antivirus
        if self._sources.antivirus is None or wanted.address is None:
            return
        state = self._sources.antivirus()
        if state.healthy:
            yield words.clamd_there(wanted.address, state.version, state.signatures_age)
            return
        away = words.clamd_unavailable(wanted.address, state.reason, fail_open=wanted.fail_open)
        yield replace(away, state=Severity.WARN) if wanted.fail_open else away
