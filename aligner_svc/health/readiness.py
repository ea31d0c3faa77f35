"""What a running server reports of itself at /ready: whether it serves, and which of its dependencies are unavailable.

It is ready exactly when the health service says SERVING: with different answers a load balancer and an orchestrator would
act differently. An unavailable dependency is only a finding: `warn` if calls go on by design (without the quotas' store
each server counts its own share), `fail` if some are refused (tokens of an issuer without keys, uploads without a scanner).
Such refusals say why and when to retry. Not ready would leave clients without an answer, on all replicas at once, as they
share the dependency.

Reads only what the server's parts know anyway: a probe takes a tenth of a millisecond.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aligner_svc.config import Settings
from aligner_svc.health import phrases
from aligner_svc.health.findings import Finding, Severity, check_failed, fail, listed, ok, presentable
from aligner_svc.telemetry.logs.redaction import Redactor
from interceptors.quota.stores.redis_client import place

if TYPE_CHECKING:
    from aligner_svc.telemetry.metrics import Sources

log = logging.getLogger("aligner_svc.doctor.readiness")


class Readiness:
    """Call it on the event loop of the server.

    `sources`: the server's parts, as for the metrics. `keys_unavailable`: whether the key database is unreachable; None: not
    used. `now`: Unix seconds.
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
        """Of the server, its engine, and the dependencies of its guards, in this order; those not in use are left out."""
        found: list[Finding] = []
        for name, check in self._checks.items():
            try:
                found += check()
            except Exception as error:
                if name not in self._broken:  # once, not at every probe
                    self._broken.add(name)
                    log.exception("readiness: %s cannot be read", name)
                found.append(check_failed(name, error))
        return presentable(found, self._redactor)

    def report(self) -> tuple[bool, str]:
        """Whether it is ready, and as JSON {"ready": bool, "findings": [{"check", "state", "said", "hint"}, ...]}."""
        ready = self._why_not() is None
        report = {"ready": ready, "findings": listed(self.findings())}
        return ready, json.dumps(report, indent=2, ensure_ascii=False) + "\n"

    def _why_not(self) -> str | None:
        return self._sources.not_serving() if self._sources.not_serving is not None else "it is starting"

    def _server(self) -> Iterator[Finding]:
        why = self._why_not()
        if why is None:
            yield ok("server", "it is SERVING")
        else:
            yield fail("server", f"it is NOT_SERVING: {why}", phrases.NOT_SERVING)

    def _engine(self) -> Iterator[Finding]:
        if self._sources.engine is None:
            return
        name, failed = self._sources.build.get("engine", "the engine"), self._sources.engine().failed
        yield ok("engine", f"{name}: in service") if failed is None else phrases.engine_failed(name, failed)

    def _workers(self) -> Iterator[Finding]:
        pools = [(pool.name, len(pool.pids), pool.wanted) for pool in self._sources.pools if pool.wanted]
        missing = [phrases.workers_missing(*pool) for pool in pools if pool[1] < pool[2]]
        if pools and not missing:
            yield ok("workers", ", ".join(f"{name}: {up} worker processes" for name, up, _ in pools))
        yield from missing

    def _tls(self) -> Iterator[Finding]:
        if self._sources.certificate_expires is not None:
            yield phrases.certificate_expiry(self._sources.certificate_expires() - self._now())

    def _jwks(self) -> Iterator[Finding]:
        for issuer, keys in self._sources.key_sources.items():
            age, why = keys.age_seconds, keys.last_error or "its keys have not been fetched yet"
            if age is None:
                yield phrases.issuer_keys_missing(issuer, why)
            elif keys.trouble or keys.last_error:
                yield phrases.issuer_keys_old(issuer, why, age, stale=bool(keys.trouble))
            else:
                yield ok("jwks", f"{issuer}: its keys were fetched {phrases.span(age)} ago")

    def _keys(self) -> Iterator[Finding]:
        if self._keys_unavailable is None:
            return
        from interceptors.auth.api_keys.database import Database  # noqa: PLC0415 - already loaded if API keys are used

        database = str(Database(self._settings.keys.database.get_secret_value()))
        if self._keys_unavailable():
            yield phrases.key_database_unavailable(database, "it does not answer; the server retries every second")
        else:
            yield ok("keys", f"{database}: it answers")

    def _redis(self) -> Iterator[Finding]:
        store, url = self._sources.quota_store, self._settings.quota.redis
        if store is None or url is None:
            return
        where = place(url.get_secret_value())
        if store.degraded:  # calls go on: see interceptors.quota.stores.fallback
            yield replace(phrases.redis_unavailable(where), severity=Severity.WARN)
        else:
            yield ok("redis", f"{where}: it answers")

    def _clamd(self) -> Iterator[Finding]:
        antivirus = self._settings.antivirus
        if self._sources.antivirus is None or antivirus.address is None:
            return
        state = self._sources.antivirus()
        if state.healthy:
            yield phrases.clamd_available(antivirus.address, state.version, state.signatures_age)
            return
        unavailable = phrases.clamd_unavailable(antivirus.address, state.reason, fail_open=antivirus.fail_open)
        yield replace(unavailable, severity=Severity.WARN) if antivirus.fail_open else unavailable
