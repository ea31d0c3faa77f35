"""Settings: ALIGNER_* variables over a TOML file over the defaults below.

Nested fields are joined by two underscores: `ALIGNER_LIMITS__AUDIO_SECONDS=600`. The TOML
file is `aligner.toml` in the working directory, or the one `ALIGNER_CONFIG` names.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from aligner_svc.config.engine import EngineSettings, QwenSettings, RaySettings
from aligner_svc.config.http import HttpSettings
from aligner_svc.config.limits import DecodeSettings, Limits, ServerSettings, StreamSettings
from aligner_svc.config.protection import AbuseSettings, AntivirusSettings, ConnectionSettings, OverloadSettings, QuotaSettings
from aligner_svc.config.security import METHODS, AuditSettings, AuthSettings, JwtSettings, KeySettings, TlsSettings
from aligner_svc.config.telemetry import LogSettings, MetricsSettings, TracingSettings


def toml_file() -> Path:
    """The path of the settings file, which may not exist."""
    return Path(os.environ.get("ALIGNER_CONFIG", "aligner.toml"))


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="ALIGNER_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file="aligner.toml"
    )

    server: ServerSettings = Field(default_factory=ServerSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    limits: Limits = Field(default_factory=Limits)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    qwen: QwenSettings = Field(default_factory=QwenSettings)
    ray: RaySettings = Field(default_factory=RaySettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    jwt: JwtSettings = Field(default_factory=JwtSettings)
    keys: KeySettings = Field(default_factory=KeySettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    quota: QuotaSettings = Field(default_factory=QuotaSettings)
    overload: OverloadSettings = Field(default_factory=OverloadSettings)
    abuse: AbuseSettings = Field(default_factory=AbuseSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    logs: LogSettings = Field(default_factory=LogSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    antivirus: AntivirusSettings = Field(default_factory=AntivirusSettings)
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings)

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        """Rules between sections. What depends on the address is checked by transport.bind, which resolves it."""
        methods, tls = self.auth.methods, self.tls.certificate is not None
        if self.server.profile == "dev" and (methods or tls):
            given = [name for name, set_ in (("auth.methods", methods), ("tls.certificate", tls)) if set_]
            verb = "are" if len(given) > 1 else "is"
            raise ValueError(f"{' and '.join(given)} {verb} set, and the dev profile uses neither: start with --profile prod")
        if self.server.profile == "prod" and not methods:
            some = f"set ALIGNER_AUTH__METHODS to some of {', '.join(METHODS)}"
            raise ValueError(f"the prod profile needs at least one authentication method: {some}")
        if "jwt" in methods and not self.jwt.issuers:
            raise ValueError("auth.methods has jwt, and no issuer is configured: set ALIGNER_JWT__ISSUERS")
        if "mtls" in methods and self.tls.client_ca is None:
            raise ValueError("auth.methods has mtls, and no client certificate is asked for: set ALIGNER_TLS__CLIENT_CA")
        if self.server.processes > 1 and self.engine.name == "qwen":
            raise ValueError("server.processes is above 1, and each would load the qwen model: set ALIGNER_SERVER__PROCESSES=1")
        if self.antivirus.cache_shared and self.quota.redis is None:
            raise ValueError("antivirus.cache_shared is set, and there is nowhere to share verdicts: set ALIGNER_QUOTA__REDIS")
        if self.ray.max_replicas < self.ray.min_replicas:
            raise ValueError(f"ray.max_replicas is {self.ray.max_replicas}, less than ray.min_replicas, {self.ray.min_replicas}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file())
