"""Settings of who may call: TLS, authentication, authorisation, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
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
    """The server's own certificate, and whose certificates it takes. Files are read again when they change."""

    certificate: Path | None = Field(None, description="PEM file of the server's certificate and its chain")
    key: Path | None = Field(None, description="PEM file of its private key, unencrypted")
    client_ca: Path | None = Field(None, description="PEM file of the CAs of clients; set: every client needs a certificate")
    reload_every: float = Field(2.0, gt=0, le=3600, description="seconds between looks at files that may change")

    @model_validator(mode="after")
    def _belong_together(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls.certificate and tls.key are needed together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("tls.client_ca needs tls.certificate and tls.key")
        return self


class AuthSettings(Section):
    """Who is let in, and what each may do."""

    methods: Annotated[tuple[MethodName, ...], NoDecode, BeforeValidator(split_names)] = Field(
        (), description="of mtls, jwt, api_key, separated by commas: what proves who calls"
    )
    identity: Annotated[tuple[Literal["spiffe", "dns", "cn"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("spiffe", "dns"), description="where a client certificate's identity is read: the first of these that it has"
    )
    identities: Names = Field(
        (), description="identities that are let in, * for any part: spiffe://example.org/*; empty: whoever the client CA signed"
    )
    policy: Path | None = Field(None, description="TOML file: scopes of methods and of principals; unset: the built-in policy")
    dry_run: bool = Field(False, description="log what the policy would refuse and let it pass")

    @field_validator("identity")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one of spiffe, dns, cn is needed")
        return value


class Issuer(Section):
    """One issuer of tokens that is believed."""

    issuer: str = Field(min_length=1, description="the iss claim, exactly")
    audience: Names = Field(min_length=1, description="the aud claim has to name one of these")
    jwks_url: str | None = Field(None, description="where its keys are; unset: discovered from the issuer")
    jwks_file: Path | None = Field(None, description="a file with its keys, instead of a URL")

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
    """Tokens: RFC 9068 access tokens, checked as RFC 8725 says."""

    issuers: tuple[Issuer, ...] = Field((), description="JSON list of {issuer, audience, jwks_url or jwks_file}")
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="signatures that are accepted"
    )
    max_lifetime: float = Field(86_400.0, gt=0, le=366 * 86_400, description="longest time from iat to exp, seconds")
    leeway: float = Field(30.0, ge=0, le=300, description="seconds a clock may be off")
    overtime: float = Field(3600.0, ge=0, le=86_400, description="seconds a call may go on after its token has expired")
    keys_refresh: float = Field(300.0, gt=0, le=86_400, description="seconds between fetches of an issuer's keys")
    keys_stale: float = Field(
        86_400.0, gt=0, le=30 * 86_400, description="age of keys, seconds, up to which an outage is bridged"
    )
    cache: int = Field(10_000, ge=0, le=1_000_000, description="verified tokens that are remembered")


class KeySettings(Section):
    """API keys."""

    database: SecretStr = Field(
        SecretStr("sqlite+aiosqlite:///aligner-keys.db"),
        description="where keys are kept: a file, or postgresql+asyncpg://USER:PASSWORD@HOST/NAME for several servers",
    )
    pepper: SecretStr | None = Field(None, description="secret that stored keys are hashed with, 32 characters at least")
    pepper_file: Path = Field(
        Path("aligner-keys.pepper"), description="file with that secret, made by the first `aligner keys create` if absent"
    )
    prefix: str = Field("alk", pattern=r"^[a-z][a-z0-9]{1,15}$", description="what keys begin with")
    timeout: float = Field(0.5, gt=0, le=60, description="seconds the database may take for a lookup")
    outage: float = Field(
        3600.0, ge=0, le=86_400, description="seconds a key that was good goes on while the database is out of reach"
    )

    @field_validator("pepper")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("at least 32 characters are needed")
        return value


class AuditSettings(Section):
    """Where security events are written, one JSON object a line."""

    file: Path | None = Field(None, description="appended to, and opened again when it was rotated away; unset: stdout")
