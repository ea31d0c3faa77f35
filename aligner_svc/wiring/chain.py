"""The guards the settings ask for, built once: TLS, authentication, authorisation, audit.

What only some of them need (cryptography, httpx, SQLAlchemy: half a second) is imported where they are asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

import grpc

from aligner_svc.config import Settings
from aligner_svc.config.security import AuthSettings, Issuer, JwtSettings, KeySettings
from aligner_svc.rpc.field_rules import ProtoRules
from aligner_svc.rpc.status import DOMAIN
from aligner_svc.telemetry.audit.log import AuditError, AuditLog, open_audit
from aligner_svc.wiring.protection import Part, ProtectionError, build
from interceptors import Authenticate, Authorise, Describe, Record, SecurityEvent, chain
from interceptors.access_log import AccessLog
from interceptors.antivirus.clamav import TooLargeError
from interceptors.auth.authenticate import Certificates, Keys, Methods, Tokens
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.policy import Policy
from interceptors.payload_rules import PayloadRules
from interceptors.rules.file import RulesFile
from interceptors.rules.toml_text import RulesError

if TYPE_CHECKING:
    from aligner_svc.telemetry.metrics import Metrics
    from aligner_svc.transport.tls import ServerCertificates
    from interceptors.antivirus.interceptor import Scan
    from interceptors.antivirus.scanner import Antivirus
    from interceptors.auth.api_keys.authenticator import KeyAuthenticator
    from interceptors.auth.api_keys.store import KeyStore
    from interceptors.auth.jwt.authenticator import JwtAuthenticator
    from interceptors.tracing.interceptor import Tracing

DEFAULT_POLICY = "default_policy.toml"

log = logging.getLogger("aligner_svc.guards")


class GuardError(Exception):
    """The guards cannot stand as the settings have them; the message says why and what to do."""


class Guards:
    """`interceptors` for the server and its `credentials` (None: plaintext). `start` before it listens, `close` after it."""

    def __init__(
        self,
        settings: Settings,
        describe: Describe,
        *,
        served: Collection[str],
        streams: Collection[str],
        exempt: Collection[str],
        tracing: Tracing | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`served`: every method, "/package.Service/Method"; `streams` and `exempt` of these: anybody may call the latter.

        Raises GuardError.
        """
        self._parts: list[Part] = []
        self._audit: AuditLog | None = None
        self._store: KeyStore | None = None
        self.certificates: ServerCertificates | None = None
        self.tokens: JwtAuthenticator | None = None
        self.keys: KeyAuthenticator | None = None
        self.antivirus: Antivirus | None = None
        """These four for metrics and readiness; None where they are not asked for."""
        limits = settings.limits
        try:
            record = self._open_audit(settings)
            if metrics is not None:
                record = metrics.calls.recording(record or _logged)
            self.credentials = self._tls(settings, record)
            protection = build(settings, record, describe, streams=streams, exempt=exempt)
            self._parts += protection.parts
            self.protection = protection
            self.interceptors = chain(
                describe,
                DOMAIN,
                max_metadata_entries=limits.metadata_entries,
                max_metadata_bytes=limits.metadata_bytes,
                tracing=tracing,
                metrics=metrics.rpc if metrics is not None else None,
                access_log=AccessLog(describe, quiet=exempt),
                record=record,
                abuse=protection.abuse,
                authenticate=self._authenticate(settings, record, exempt),
                authorise=self._authorise(settings, record, served, exempt),
                quota=protection.quota,
                overload=protection.overload,
                scan=self._scan(settings, record, streams, exempt),
                check=PayloadRules(ProtoRules()).check,
            )
        except (AuditError, ProtectionError, RulesError) as error:
            self._close_audit()
            raise GuardError(str(error)) from None
        except GuardError:
            self._close_audit()
            raise

    @property
    def dropped(self) -> Mapping[str, Callable[[], int]]:
        """What was lost on its way out, by what it was."""
        audit = self._audit
        return {} if audit is None else {"audit": lambda: audit.dropped}

    async def start(self) -> None:
        """Fetch keys, watch files. An issuer or a database that is out of reach does not stop the start.

        Raises GuardError: a file of keys is not what it should be.
        """
        try:
            await asyncio.gather(*(part.start() for part in self._parts))
        except (JwksError, TooLargeError) as error:
            raise GuardError(str(error)) from None

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(part.close() for part in self._parts))
        if self._store is not None:
            await self._store.close()  # the authenticator has written its last into it
        self._close_audit()

    def _close_audit(self) -> None:
        if self._audit is not None:
            self._audit.close()

    def _scan(self, settings: Settings, record: Record | None, streams: Collection[str], exempt: Collection[str]) -> Scan | None:
        if settings.antivirus.address is None:
            return None
        from aligner_svc.wiring.antivirus import build as build_scan  # noqa: PLC0415

        try:
            antivirus, scan = build_scan(settings, record or _logged, streams=streams, exempt=exempt)
        except ValueError as error:
            raise GuardError(f"antivirus.address: {error}") from None
        self._parts.append(antivirus)
        self.antivirus = antivirus
        return scan

    def _open_audit(self, settings: Settings) -> Record | None:
        """In the dev profile nobody is known, and its own errors are in the log: a record only where a file is named."""
        if settings.server.profile == "dev" and settings.audit.file is None:
            return None
        self._audit = open_audit(settings.audit)
        return self._audit.record

    def _tls(self, settings: Settings, record: Record | None) -> grpc.ServerCredentials | None:
        tls = settings.tls
        if tls.certificate is None or tls.key is None:
            return None
        from aligner_svc.transport.tls import CertificateError, ServerCertificates  # noqa: PLC0415

        try:
            certificates = ServerCertificates(tls.certificate, tls.key, tls.client_ca, _required(record), tls.reload_every)
        except CertificateError as error:
            raise GuardError(str(error)) from None
        self._parts.append(certificates)
        self.certificates = certificates
        return certificates.credentials()

    def _authenticate(self, settings: Settings, record: Record | None, exempt: Collection[str]) -> Authenticate | None:
        auth = settings.auth
        if not auth.methods:
            return None
        from interceptors.auth.mtls import thumbprint  # noqa: PLC0415

        methods = Methods(
            tokens=self._tokens(settings.jwt, settings.tls.reload_every) if "jwt" in auth.methods else None,
            keys=self._keys(settings.keys) if "api_key" in auth.methods else None,
            certificates=_certificates(auth, settings) if "mtls" in auth.methods else None,
        )
        return Authenticate(
            methods,
            thumbprint=thumbprint,
            exempt=exempt,
            overtime=settings.jwt.overtime,
            record=_required(record),
            domain=DOMAIN,
        )

    def _tokens(self, settings: JwtSettings, reload_every: float) -> Tokens:
        if not settings.issuers:
            raise GuardError("auth.methods has jwt, and no issuer is believed: set ALIGNER_JWT__ISSUERS")
        from interceptors.auth.jwt.access_token import TokenRules  # noqa: PLC0415
        from interceptors.auth.jwt.authenticator import JwtAuthenticator  # noqa: PLC0415
        from interceptors.auth.jwt.jwks import FileKeys, UrlKeys  # noqa: PLC0415

        def rules(issuer: Issuer) -> TokenRules:
            audiences, algorithms = frozenset(issuer.audience), frozenset(settings.algorithms)
            return TokenRules(issuer.issuer, audiences, algorithms, settings.max_lifetime, settings.leeway)

        def keys(issuer: Issuer) -> FileKeys | UrlKeys:
            if issuer.jwks_file is not None:
                return FileKeys(issuer.jwks_file, reload_every)
            return UrlKeys(issuer.issuer, issuer.jwks_url, refresh=settings.keys_refresh, stale=settings.keys_stale)

        try:
            authenticator = JwtAuthenticator([(rules(one), keys(one)) for one in settings.issuers], cache=settings.cache)
        except ValueError as error:  # an issuer that is named twice
            raise GuardError(f"jwt.issuers: {error}") from None
        self._parts.append(authenticator)
        self.tokens = authenticator
        return authenticator

    def _keys(self, settings: KeySettings) -> Keys:
        """SQLAlchemy and the migrations are imported where API keys are a method alone."""
        from aligner_svc.wiring.api_keys import PepperError, open_store, read_pepper  # noqa: PLC0415
        from interceptors.auth.api_keys.authenticator import KeyAuthenticator  # noqa: PLC0415

        try:
            store = open_store(settings)
            pepper = read_pepper(settings)
        except PepperError as error:
            raise GuardError(str(error)) from None
        except ValueError as error:
            raise GuardError(f"keys.database: {error}") from None
        authenticator = KeyAuthenticator(store, pepper, prefix=settings.prefix, timeout=settings.timeout, outage=settings.outage)
        self._parts.append(authenticator)
        self.keys = authenticator
        self._store = store
        return authenticator

    def _authorise(
        self, settings: Settings, record: Record | None, served: Collection[str], exempt: Collection[str]
    ) -> Authorise | None:
        auth = settings.auth
        if not auth.methods:
            return None
        record = _required(record)
        if auth.policy is None:
            text = files("aligner_svc.wiring").joinpath(DEFAULT_POLICY).read_text(encoding="utf-8")
            built_in = Policy.parse(text, DEFAULT_POLICY, served)
            return Authorise(lambda: built_in, served=served, exempt=exempt, dry_run=auth.dry_run, record=record)
        policy = RulesFile(auth.policy, partial(Policy.parse, served=served), record, settings.tls.reload_every)
        self._parts.append(policy)
        return Authorise(lambda: policy.current, served=served, exempt=exempt, dry_run=auth.dry_run, record=record)


def _certificates(auth: AuthSettings, settings: Settings) -> Certificates:
    if settings.tls.client_ca is None:
        raise GuardError("auth.methods has mtls, and no client certificate is asked for: set ALIGNER_TLS__CLIENT_CA")
    from interceptors.auth.mtls import CertificateAuthenticator  # noqa: PLC0415

    try:
        return CertificateAuthenticator(auth.identity, auth.identities)
    except ValueError as error:  # a pattern that can match nothing
        raise GuardError(f"auth.identities: {error}") from None


def _logged(event: SecurityEvent) -> None:
    """Where there is no audit log, as in the dev profile."""
    log.warning("%s: %s", event.event, event.detail)


def _required(record: Record | None) -> Record:
    """Where there is something to guard there is a record: the exposure check lets no other settings pass."""
    if record is None:
        raise GuardError("the dev profile has neither TLS nor authentication: start with --profile prod")
    return record
