"""Builds the authentication methods and the policy that the settings ask for.

What only one method needs (cryptography, httpx, SQLAlchemy: half a second) is imported where it is asked for.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files

from aligner_svc.config import Settings
from aligner_svc.config.security import METHODS, Issuer
from aligner_svc.errors import StartError
from aligner_svc.rpc.services import EXEMPT, SERVED
from aligner_svc.rpc.status import DOMAIN
from interceptors import Authenticate, Authorise, Record
from interceptors.auth.method import AuthMethod
from interceptors.auth.policy import Policy
from interceptors.rules.file import RulesFile
from interceptors.rules.toml_text import RulesError

DEFAULT_POLICY = "default_policy.toml"


def build_methods(settings: Settings) -> Mapping[str, AuthMethod]:
    """Those of `auth.methods`, by name. Raises StartError."""
    built: dict[str, AuthMethod] = {}
    for name in settings.auth.methods:
        build: Callable[[Settings], AuthMethod] = pkgutil.resolve_name(METHODS[name])
        built[name] = build(settings)
    return built


def build_authenticate(settings: Settings, methods: Mapping[str, AuthMethod], record: Record) -> Authenticate | None:
    """None where no method is asked for. Raises StartError."""
    if not methods:
        return None
    try:
        return Authenticate(
            list(methods.values()), exempt=EXEMPT, expiry_grace=settings.jwt.overtime, record=record, domain=DOMAIN
        )
    except ValueError as error:
        raise StartError(f"auth.methods: {error}") from None


def build_authorise(settings: Settings, record: Record) -> tuple[Authorise, RulesFile[Policy] | None] | tuple[None, None]:
    """The guard, and the file it follows, to start and close with the server; None where no method is asked for.

    Raises StartError.
    """
    auth = settings.auth
    if not auth.methods:
        return None, None
    try:
        if auth.policy is None:
            text = files("aligner_svc.wiring").joinpath(DEFAULT_POLICY).read_text(encoding="utf-8")
            built_in = Policy.parse(text, DEFAULT_POLICY, SERVED)
            return Authorise(lambda: built_in, served=SERVED, exempt=EXEMPT, dry_run=auth.dry_run, record=record), None
        policy = RulesFile(auth.policy, partial(Policy.parse, served=SERVED), record, settings.tls.reload_every)
    except RulesError as error:
        raise StartError(str(error)) from None
    return Authorise(lambda: policy.current, served=SERVED, exempt=EXEMPT, dry_run=auth.dry_run, record=record), policy


def certificates(settings: Settings) -> AuthMethod:
    """Client certificates (mTLS). Raises StartError."""
    from interceptors.auth.mtls import CertificateAuthenticator

    try:
        return CertificateAuthenticator(settings.auth.identity, settings.auth.identities)
    except ValueError as error:  # a pattern that can match nothing
        raise StartError(f"auth.identities: {error}") from None


def tokens(settings: Settings) -> AuthMethod:
    """Bearer tokens (JWT). Raises StartError."""
    from interceptors.auth.jwt.access_token import TokenRules
    from interceptors.auth.jwt.authenticator import JwtAuthenticator
    from interceptors.auth.jwt.jwks import FileKeys, UrlKeys

    jwt = settings.jwt

    def rules(issuer: Issuer) -> TokenRules:
        audiences, algorithms = frozenset(issuer.audience), frozenset(jwt.algorithms)
        return TokenRules(issuer.issuer, audiences, algorithms, jwt.max_lifetime, jwt.leeway, issuer.typ_jwt)

    def keys(issuer: Issuer) -> FileKeys | UrlKeys:
        if issuer.jwks_file is not None:
            return FileKeys(issuer.jwks_file, settings.tls.reload_every)
        return UrlKeys(issuer.issuer, issuer.jwks_url, refresh=jwt.keys_refresh, stale=jwt.keys_stale)

    try:
        return JwtAuthenticator([(rules(issuer), keys(issuer)) for issuer in jwt.issuers], cache=jwt.cache)
    except ValueError as error:  # an issuer that is configured twice
        raise StartError(f"jwt.issuers: {error}") from None


def api_keys(settings: Settings) -> AuthMethod:
    """API keys. Raises StartError."""
    from aligner_svc.wiring.api_keys import open_store, read_pepper
    from interceptors.auth.api_keys.authenticator import KeyAuthenticator

    keys = settings.keys
    try:
        store = open_store(keys)
    except ValueError as error:
        raise StartError(f"keys.database: {error}") from None
    return KeyAuthenticator(store, read_pepper(keys), prefix=keys.prefix, timeout=keys.timeout, outage=keys.outage)
