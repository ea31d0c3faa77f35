"""Settings: ALIGNER_* variables over a TOML file over the defaults below.

Nested fields are joined by two underscores: `ALIGNER_LIMITS__AUDIO_SECONDS=600`. The TOML
file is `aligner.toml` in the working directory, or the one `ALIGNER_CONFIG` names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.protection_settings import (
    AbuseSettings,
    AntivirusSettings,
    ConnectionSettings,
    OverloadSettings,
    QuotaSettings,
)
from aligner_svc.security_settings import AuditSettings, AuthSettings, JwtSettings, KeySettings, Section, TlsSettings
from aligner_svc.telemetry_settings import LogSettings, MetricsSettings, TracingSettings

MIB = 1 << 20
MAX_PAYLOAD = 1 << 30
"""Bytes one message to or from a worker process may carry, as in workers.frames; not imported, this file stays light."""


def _cores() -> int:
    """Processors this process may use; a container's cpuset counts, the machine's size does not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def toml_file() -> Path:
    """The settings file, there or not."""
    return Path(os.environ.get("ALIGNER_CONFIG", "aligner.toml"))


class ServerSettings(Section):
    """Where the service listens and how it leaves."""

    profile: Literal["dev", "prod"] = Field(
        "dev",
        description="dev: loopback only, plaintext, no authentication, reflection on; prod: authentication, and TLS off loopback",
    )
    listen: str = Field("127.0.0.1:50051", description="HOST:PORT; port 0 takes a free one")
    drain_delay: float = Field(1.0, ge=0, le=3600, description="seconds between NOT_SERVING and refusing new calls")
    drain_grace: float = Field(30.0, ge=0, le=24 * 3600, description="seconds calls in flight may take to finish after that")


class Limits(Section):
    """What a caller may send."""

    unary_audio_bytes: int = Field(10 * MIB, gt=0, le=512 * MIB, description="audio bytes of one Align call")
    stream_audio_bytes: int = Field(512 * MIB, gt=0, le=MAX_PAYLOAD, description="audio bytes of one StreamAlign call")
    stream_chunk_bytes: int = Field(1 * MIB, gt=0, le=64 * MIB, description="audio bytes of one StreamAlign message")
    audio_seconds: float = Field(4 * 3600, gt=0, le=MAX_PAYLOAD // (2 * SAMPLE_RATE), description="longest audio")
    metadata_entries: int = Field(64, gt=0, le=10_000, description="metadata entries of one call")
    metadata_bytes: int = Field(8 * 1024, gt=0, le=MIB, description="bytes of the metadata of one call, names included")
    transcript_chars: int = Field(200_000, gt=0, le=10_000_000, description="longest transcript, code points")
    transcript_words: int = Field(100_000, gt=0, le=10_000_000, description="longest transcript, words")
    transcript_dense: Literal["refuse", "warn"] = Field(
        "refuse", description="what becomes of a transcript that nobody could have said in the audio's time"
    )


class DecodeSettings(Section):
    """The decoder's worker processes."""

    workers: int = Field(default_factory=lambda: max(1, _cores() // 2), ge=1, le=1024, description="decoder processes")
    timeout: float = Field(120.0, gt=0, le=24 * 3600, description="wall-clock seconds one decode may take")
    sandbox: Literal["required", "best-effort", "off"] = Field(
        "best-effort", description="what workers may not do; required: the start fails where the kernel lacks a part of it"
    )


class EngineSettings(Section):
    """The aligner behind the service."""

    name: Literal["pocketsphinx", "qwen"] = Field(
        "pocketsphinx", description="pocketsphinx: English on any CPU; qwen: Qwen3-ForcedAligner, 11 languages"
    )
    workers: int = Field(default_factory=_cores, ge=1, le=1024, description="aligner processes (pocketsphinx)")
    queue: int = Field(64, ge=1, le=1_000_000, description="calls that may wait for the engine; one more is refused")


class QwenSettings(Section):
    """Qwen3-ForcedAligner, where it is the engine."""

    model: str = Field(
        "Qwen/Qwen3-ForcedAligner-0.6B",
        min_length=1,
        description="folder of a checkpoint, or a repository of the Hugging Face hub",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$", description="cpu, cuda, cuda:N; auto: cuda if there is one"
    )
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="precision of weights and arithmetic; auto: bf16 where the device multiplies it natively"
    )
    batch_tokens: int = Field(
        0, ge=0, le=10_000_000, description="rows of the decoder one batch may have; 0: 32768 on a GPU, 1024 on a CPU"
    )
    batch_items: int = Field(128, ge=1, le=10_000, description="calls one batch may have")


class StreamSettings(Section):
    """StreamAlign uploads."""

    concurrent: int = Field(
        8,
        ge=1,
        le=100_000,
        description="streams served at a time, upload to summary; the others wait, their senders held by flow control",
    )
    idle_timeout: float = Field(60.0, gt=0, le=24 * 3600, description="seconds a sender may be silent")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="ALIGNER_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file="aligner.toml"
    )

    server: ServerSettings = Field(default_factory=ServerSettings)
    limits: Limits = Field(default_factory=Limits)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    qwen: QwenSettings = Field(default_factory=QwenSettings)
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
