"""The server's certificate and the CAs of its clients, reloaded when their files change.

A reload takes effect for new connections. Open ones keep what they began with, so that no call is dropped; for the same
reason clients of a CA that was removed stay connected, and are refused only when they reconnect.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from aligner_svc.transport import certificates
from aligner_svc.transport.certificates import CertificateError
from aligner_svc.transport.ssl_context import server_context
from interceptors.background import BackgroundTask
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.rules.file_watch import FileWatch

__all__ = ["SOON", "CertificateError", "ServerCertificates"]

log = logging.getLogger("aligner_svc.tls")

SOON = 14 * 86_400.0
"""Seconds before a certificate expires from which on the log warns."""
_WARN_EVERY = 86_400.0


class ServerCertificates:
    """The TLS credentials of the server. `start` follows changes of the files until `close`."""

    def __init__(  # noqa: PLR0917 - three files and how to follow them
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None,
        record: Record,
        every: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`client_ca`: CAs, of one of which every client needs a certificate; None: clients need none.

        `every`: seconds between checks of the files. Raises CertificateError.
        """
        self._paths = (certificate, key, client_ca)
        self._record = record
        self._now = now
        # Before the files are read, so that a change meanwhile is noticed.
        self._watch = FileWatch([path for path in self._paths if path is not None], self.reload, every)
        self._expiry_warning = BackgroundTask("the warning of expiring certificates", self._warn_again, every=_WARN_EVERY)
        self._failing = False
        self._loaded = certificates.read(*self._paths, now())
        self._context: tuple[certificates.ServerFiles, ssl.SSLContext] | None = None
        self.warn_of_expiry()

    @property
    def expires(self) -> float:
        """Unix seconds at which the first of the server's certificate and the clients' CAs expires."""
        return self._loaded.expires(self._now())

    def credentials(self) -> grpc.ServerCredentials:
        """For one port; a second port needs its own, because gRPC asks for changes per port."""
        current = self._loaded

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Called by gRPC before every handshake, on a thread of its own. None: no change.

            An unchanged configuration would be parsed again: milliseconds for a large bundle, before any authentication.
            """
            nonlocal current
            loaded = self._loaded
            if loaded is current:
                return None
            current = loaded
            return loaded.configuration

        # None is in gRPC's documentation and not in its stubs.
        return grpc.dynamic_ssl_server_credentials(current.configuration, changed, self._paths[2] is not None)  # type: ignore[arg-type]

    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now, of a server that is not gRPC's."""
        loaded = self._loaded
        if self._context is None or self._context[0] is not loaded:
            self._context = loaded, server_context(loaded)
        return self._context[1]

    async def start(self) -> None:
        """Follow the files from now on; a change since they were read is noticed."""
        await self._watch.start()
        self._expiry_warning.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._watch.close()
        await self._expiry_warning.close()

    def reload(self) -> None:
        """Load the files as they are now; if they are not valid, keep the present certificates and report why."""
        try:
            loaded = certificates.read(*self._paths, self._now())
        except CertificateError as error:
            self._failing = True
            log.error("the certificates were not reloaded, the present ones stay in use: %s", error)
            self._record(SecurityEvent(Event.CERTIFICATE_RELOAD_FAILED, detail=str(error)))
            return
        if loaded.same_as(self._loaded) and not self._failing:
            return  # touched, or written with the same contents
        self._failing = False
        self._loaded = loaded
        log.info("certificates reloaded: %s", loaded.describe())
        self._record(SecurityEvent(Event.CERTIFICATE_RELOADED, detail=loaded.describe()))
        self.warn_of_expiry()

    async def _warn_again(self) -> None:
        self.warn_of_expiry()

    def warn_of_expiry(self) -> None:
        """Log each certificate that has expired or expires within SOON."""
        for path, certificate in self._loaded.all():
            end = certificate.not_valid_after_utc
            left = end.timestamp() - self._now()
            name, on = certificates.subject(certificate), certificates.date(end)
            if left <= 0:
                log.error("%s: %s expired on %s", path, name, on)
            elif left < SOON:
                log.warning("%s: %s expires in %.1f days, on %s", path, name, left / 86_400, on)
