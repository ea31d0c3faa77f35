"""The guards that the settings ask for: the chain of interceptors, and what runs beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import grpc

from aligner_svc.config import Settings
from aligner_svc.engines.base import Capacity
from aligner_svc.errors import StartError
from aligner_svc.rpc.field_rules import ProtoRules
from aligner_svc.rpc.services import EXEMPT, LARGEST
from aligner_svc.rpc.status import DOMAIN
from aligner_svc.telemetry.audit.log import AuditLog, open_audit
from aligner_svc.wiring.auth import build_authenticate, build_authorise, build_methods
from aligner_svc.wiring.protection import Part, Siblings, build_protection
from interceptors import CallsInFlight, Event, ExemptLimits, Record, Requests, SecurityEvent, chain
from interceptors.access_log import AccessLog
from interceptors.antivirus.clamav import TooLargeError
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.handlers.pace import ReadTimes
from interceptors.payload_rules import PayloadRules

if TYPE_CHECKING:
    from aligner_svc.telemetry.metrics import Metrics
    from aligner_svc.transport.tls import ServerCertificates
    from interceptors.antivirus.interceptor import Scan
    from interceptors.antivirus.scanner import Antivirus
    from interceptors.tracing.interceptor import Tracing

log = logging.getLogger("aligner_svc.guards")


class Guards:
    """`interceptors` for the server and its `credentials` (None: plaintext). `start` before it listens, `close` after it.

    `methods`, `certificates`, `antivirus`, `protection` and `exempt` are read by metrics and readiness; None where not asked for.
    """

    def __init__(
        self,
        settings: Settings,
        capacity: Capacity,
        *,
        tracing: Tracing | None = None,
        metrics: Metrics | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        """`capacity`: of the engine. Raises StartError."""
        self.in_flight = CallsInFlight(anonymous=not settings.auth.methods)
        self.certificates: ServerCertificates | None = None
        self.antivirus: Antivirus | None = None
        self._parts: list[Part] = []
        # The dev profile has no principals to audit, and its errors are in the log: a record only where a file is named.
        audited = settings.server.profile != "dev" or settings.audit.file is not None
        self._audit: AuditLog | None = open_audit(settings.audit) if audited else None
        record: Record = self._audit.record if self._audit is not None else _log_event
        if metrics is not None:
            record = metrics.calls.recording(record)
        self.record = record
        try:
            self.credentials = self._tls(settings, record)
            self.protection = build_protection(settings, capacity, record, siblings)
            wanted = settings.connections
            self.exempt = ExemptLimits(
                EXEMPT, record=record, streams=wanted.watches, streams_per_address=wanted.watches_per_address
            )
            self.methods = build_methods(settings)
            authorise, policy = build_authorise(settings, record)
            scan = self._scan(settings, record)
            self._parts += [*self.protection.parts, *self.methods.values(), *([policy] if policy is not None else [])]
            self.interceptors = chain(
                DOMAIN,
                max_metadata_entries=settings.limits.metadata_entries,
                max_metadata_bytes=settings.limits.metadata_bytes,
                in_flight=self.in_flight,
                exempt=EXEMPT,
                tracing=tracing,
                metrics=metrics.rpc if metrics is not None else None,
                access_log=AccessLog(quiet=EXEMPT),
                record=record if audited or metrics is not None else None,
                abuse=self.protection.abuse,
                authenticate=build_authenticate(settings, self.methods, record),
                authorise=authorise,
                quota=self.protection.quota,
                overload=self.protection.overload,
                scan=scan,
                requests=Requests(
                    PayloadRules(ProtoRules()).check,
                    _read_times(settings),
                    largest=LARGEST,
                    most=settings.limits.message_bytes,
                    exempt=self.exempt,
                ),
            )
        except StartError:
            self._close_audit()
            raise

    @property
    def dropped(self) -> Mapping[str, Callable[[], int]]:
        """Counters of dropped records, by kind."""
        audit = self._audit
        return {} if audit is None else {"audit": lambda: audit.dropped}

    def record_restart(self, reason: str, peer: str) -> None:
        """Audit that gRPC stopped accepting calls, after one of `peer`, and that the port is served again."""
        self.record(SecurityEvent(Event.LISTENER_RESTARTED, reason, detail="peer: of the call accepted last", peer=peer))

    async def start(self) -> None:
        """Fetch keys, watch files. An issuer or a database that is unavailable does not stop the start.

        Raises StartError for a file of keys that cannot be used.
        """
        try:
            await asyncio.gather(*(part.start() for part in self._parts))
        except (JwksError, TooLargeError) as error:
            raise StartError(str(error)) from None

    def reload(self) -> None:
        """Read the files of certificates, policy and quotas again; bad ones are recorded, and what is in force stays."""
        for part in self._parts:
            if isinstance(part, _Reloadable):
                part.reload()

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(part.close() for part in self._parts))
        self._close_audit()

    def _close_audit(self) -> None:
        if self._audit is not None:
            self._audit.close()

    def _tls(self, settings: Settings, record: Record) -> grpc.ServerCredentials | None:
        tls = settings.tls
        if tls.certificate is None or tls.key is None:
            return None
        from aligner_svc.transport.tls import ServerCertificates  # noqa: PLC0415 - cryptography is slow to import

        self.certificates = ServerCertificates(tls.certificate, tls.key, tls.client_ca, record, tls.reload_every)
        self._parts.append(self.certificates)
        return self.certificates.credentials()

    def _scan(self, settings: Settings, record: Record) -> Scan | None:
        if settings.antivirus.address is None:
            return None
        from aligner_svc.wiring.antivirus import build_scan  # noqa: PLC0415

        self.antivirus, scan = build_scan(settings, record)
        self._parts.append(self.antivirus)
        return scan


def _read_times(settings: Settings) -> ReadTimes:
    stream = settings.stream
    return ReadTimes(settings.limits.unary_seconds, stream.idle_timeout, stream.least_rate, stream.max_seconds)


@runtime_checkable
class _Reloadable(Protocol):
    def reload(self) -> None: ...


def _log_event(event: SecurityEvent) -> None:
    """Where there is no audit log, as in the dev profile."""
    log.warning("%s: %s", event.event, event.detail)
