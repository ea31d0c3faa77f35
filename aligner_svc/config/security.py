"""Settings of TLS, authentication, authorisation and the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_serializer, field_validator, model_validator
from pydantic_settings import NoDecode

from aligner_svc.config.section import Names, Section, check_url, one_of, split_names

METHODS = {
    "mtls": "aligner_svc.wiring.auth:certificates",
    "jwt": "aligner_svc.wiring.auth:tokens",
    "api_key": "aligner_svc.wiring.auth:api_keys",
}
"""By name, the function that builds the method from the settings; imported only where it is used."""
MethodName = Annotated[str, AfterValidator(one_of("method", METHODS))]


class TlsSettings(Section):
    """The server's certificate and the CAs of clients. Files are reloaded when they change."""

    certificate: Path | None = Field(None, description="PEM file of the server's certificate and its chain")
    key: Path | None = Field(None, description="PEM file of its private key, unencrypted")
    client_ca: Path | None = Field(None, description="PEM file of the CAs of clients; set: every client needs a certificate")
    reload_every: float = Field(2.0, gt=0, le=3600, description="seconds between checks for changed files")

    @model_validator(mode="after")
    def _belong_together(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls.certificate and tls.key are needed together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("tls.client_ca needs tls.certificate and tls.key")
        return self


class AuthSettings(Section):
    """Authentication and authorisation."""

    methods: Annotated[tuple[MethodName, ...], NoDecode, BeforeValidator(split_names)] = Field(
        (), description="methods of authentication, separated by commas: mtls, jwt, api_key"
    )
    identity: Annotated[tuple[Literal["spiffe", "dns", "cn"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("spiffe", "dns"), description="where to read the identity in a client certificate: the first of these that it has"
    )
    identities: Names = Field(
        (), description="identities that may call, * for any part: spiffe://example.org/*; empty: all that the client CA signed"
    )
    policy: Path | None = Field(None, description="TOML file of the scopes of methods and principals; unset: the built-in policy")
    dry_run: bool = Field(False, description="log what the policy would refuse, without refusing it")

    @field_validator("identity")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one of spiffe, dns, cn is needed")
        return value


class Issuer(Section):
    """A trusted issuer of tokens."""

    issuer: str = Field(min_length=1, description="exact iss claim")
    audience: Names = Field(min_length=1, description="accepted audiences; the aud claim must contain one")
    jwks_url: str | None = Field(None, description="URL of its keys; unset: discovered from the issuer")
    jwks_file: Path | None = Field(None, description="file with its keys, instead of a URL")
    typ_jwt: bool = Field(False, description="accept access tokens with typ JWT, for a provider that cannot write at+jwt")

    @field_validator("jwks_url")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        if value is not None:
            check_url(value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Issuer:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("jwks_url and jwks_file exclude each other")
        if self.jwks_url is None and self.jwks_file is None:
            check_url(self.issuer)
        return self


class JwtSettings(Section):
    """JWT access tokens of RFC 9068, checked as RFC 8725 requires."""

    issuers: tuple[Issuer, ...] = Field((), description="JSON list of {issuer, audience, jwks_url or jwks_file, typ_jwt}")
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="accepted signature algorithms"
    )
    max_lifetime: float = Field(86_400.0, gt=0, le=366 * 86_400, description="maximum seconds from iat to exp")
    leeway: float = Field(30.0, ge=0, le=300, description="tolerated clock difference in seconds")
    overtime: float = Field(3600.0, ge=0, le=86_400, description="seconds that a call may continue after its token has expired")
    keys_refresh: float = Field(300.0, gt=0, le=86_400, description="seconds between fetches of an issuer's keys")
    keys_stale: float = Field(
        86_400.0, gt=0, le=30 * 86_400, description="maximum age in seconds of the keys used during an outage of the issuer"
    )
    cache: int = Field(10_000, ge=0, le=1_000_000, description="maximum verified tokens remembered")


_KEYS_FILE = "aligner-keys.db"


class KeySettings(Section):
    """API keys."""

    database: SecretStr = Field(
        SecretStr(_KEYS_FILE),
        description="database of the keys: the path of a file, or postgresql://USER:PASSWORD@HOST/NAME for several servers",
    )
    pepper: SecretStr | None = Field(None, description="secret that stored keys are hashed with, at least 32 characters")
    pepper_file: Path = Field(
        Path("aligner-keys.pepper"), description="file with that secret; the first `aligner keys create` makes it"
    )
    prefix: str = Field("alk", pattern=r"^[a-z][a-z0-9]{1,15}$", description="prefix of every key")
    timeout: float = Field(0.5, gt=0, le=60, description="maximum seconds to wait for the database in a call")
    outage: float = Field(
        3600.0, ge=0, le=86_400, description="seconds that a known valid key is accepted while the database is unavailable"
    )

    @field_serializer("database", when_used="json")
    def _show(self, value: SecretStr) -> str:
        """The default; another one may be a URL with a password."""
        return _KEYS_FILE if value.get_secret_value() == _KEYS_FILE else str(value)

    @field_validator("pepper")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("at least 32 characters are needed")
        return value


class AuditSettings(Section):
    """The audit log of security events, one JSON object per line."""

    file: Path | None = Field(None, description="file to append to, reopened after a rotation; unset: stdout")
