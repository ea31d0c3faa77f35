"""The server's certificate and whose certificates it takes, followed when the files change.

Reading again swaps the certificate for new connections. Those that are open keep the one they began with, so no call is
dropped; for the same reason a CA that is taken out keeps its clients only from connecting anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from aligner_svc.transport import certificates
from aligner_svc.transport.certificates import CertificateError
from interceptors.background import BackgroundTask
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.rules.file_watch import FileWatch

__all__ = ["SOON", "CertificateError", "ServerCertificates"]

log = logging.getLogger("aligner_svc.tls")

SOON = 14 * 86_400.0
"""Seconds before its end from which a certificate is warned of."""
_REMIND_EVERY = 86_400.0


class ServerCertificates:
    """What the TLS server needs, as the files have it. `start` to follow their changes, then `close`."""

    def __init__(  # noqa: PLR0917 - three files and what to do about them
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None,
        record: Record,
        every: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`client_ca`: every client needs a certificate of one of these. `every`: seconds between looks at the files.

        Raises CertificateError.
        """
        self._paths = (certificate, key, client_ca)
        self._record = record
        self._now = now
        # Before the files are read, so that a change while they are counts.
        self._watch = FileWatch([path for path in self._paths if path is not None], self._reload, every)
        self._reminding = BackgroundTask("the reminder of certificates that expire", self._remind_again, every=_REMIND_EVERY)
        self._failing = False
        self._loaded = certificates.read(*self._paths, now())
        self._remind()

    @property
    def expires(self) -> float:
        """Unix seconds at which the first of the server's certificate and the clients' CAs in force ends."""
        return self._loaded.expires(self._now())

    def credentials(self) -> grpc.ServerCredentials:
        """For one port; a second port needs its own, because gRPC asks for changes port by port."""
        given = self._loaded

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Asked by gRPC before every handshake, on a thread of its own; None keeps what the port has.

            The same again would be parsed again: milliseconds for a large bundle, before anybody is authenticated.
            """
            nonlocal given
            loaded = self._loaded
            if loaded is given:
                return None
            given = loaded
            return loaded.configuration

        # None is in gRPC's documentation and not in its stubs.
        return grpc.dynamic_ssl_server_credentials(given.configuration, changed, self._paths[2] is not None)  # type: ignore[arg-type]

    async def start(self) -> None:
        """Follow the files from now on; a change since they were read counts."""
        await self._watch.start()
        self._reminding.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._watch.close()
        await self._reminding.close()

    def _reload(self) -> None:
        try:
            loaded = certificates.read(*self._paths, self._now())
        except CertificateError as error:
            self._failing = True
            log.error("the certificate in force is kept: %s", error)
            self._record(SecurityEvent(Event.CERTIFICATE_RELOAD_FAILED, detail=str(error)))
            return
        if loaded.same_as(self._loaded) and not self._failing:
            return  # touched, or written again as it was
        self._failing = False
        self._loaded = loaded
        log.info("certificates read again: %s", loaded.describe())
        self._record(SecurityEvent(Event.CERTIFICATE_RELOADED, detail=loaded.describe()))
        self._remind()

    async def _remind_again(self) -> None:
        self._remind()

    def _remind(self) -> None:
        for path, certificate in self._loaded.all():
            end = certificate.not_valid_after_utc
            left = end.timestamp() - self._now()
            name, on = certificates.subject(certificate), certificates.date(end)
            if left <= 0:
                log.error("%s: %s has expired on %s", path, name, on)
            elif left < SOON:
                log.warning("%s: %s expires in %.1f days, on %s", path, name, left / 86_400, on)
