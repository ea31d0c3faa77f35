"""Settings of how much each caller may use, and what the server bears: quotas, overload, abuse, connections."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from aligner_svc.config.section import Names, Section


class QuotaSettings(Section):
    """What each caller may use. In the dev profile only where a file is named."""

    file: Path | None = Field(None, description="TOML file of classes and who is in which; unset: the built-in class")
    redis: SecretStr | None = Field(
        None, description="redis://..., rediss:// or unix://: where several servers count together; unset: each for itself"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="servers that share the limits while Redis is out of reach")


class OverloadSettings(Section):
    """What is done when more is asked for than can be served."""

    adaptive: bool = Field(True, description="refuse calls at once, by how long they wait for the engine, before it is swamped")
    pressure: bool = Field(True, description="refuse more while the control group is short of memory or CPU")


class AbuseSettings(Section):
    """What is borne from one address before it is blocked for a while. In the prod profile alone."""

    enabled: bool = Field(True, description="count by address, and block")
    shadow: bool = Field(False, description="record who would be blocked, and block nobody")
    calls_per_minute: int | None = Field(None, ge=1, description="calls of any outcome; unset: any number, quotas see to it")
    failures_per_minute: int = Field(20, ge=1, le=1_000_000, description="credentials that are refused")
    invalid_per_minute: int = Field(60, ge=1, le=1_000_000, description="requests that cannot be served as they are")
    block_seconds: float = Field(30.0, gt=0, le=86_400, description="first block; each further one is twice as long")
    longest_block_seconds: float = Field(3600.0, gt=0, le=7 * 86_400, description="longest block")
    trusted: Names = Field(
        ("127.0.0.0/8", "::1/128"), description="networks that are never counted: proxies and sidecars, which many callers share"
    )
    entries: int = Field(100_000, ge=100, le=10_000_000, description="addresses that are remembered")

    @field_validator("trusted")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)  # its message is for people
        return value


class AntivirusSettings(Section):
    """ClamAV, where every upload is scanned before it is decoded. Without an address nothing is."""

    address: str | None = Field(None, description="where clamd listens: unix:/run/clamav/clamd.ctl or tcp://127.0.0.1:3310")
    stream_max_bytes: int = Field(
        0, ge=0, le=1 << 32, description="most that is sent for one scan, clamd must take as much; 0: the largest upload"
    )
    timeout: float = Field(5.0, gt=0, le=600, description="seconds for a connection, a command, each chunk")
    scan_timeout: float = Field(60.0, gt=0, le=3600, description="seconds from the last chunk to the verdict")
    connections: int = Field(16, ge=2, le=1000, description="to clamd, at a time")
    skip_pcm: bool = Field(False, description="leave headerless audio unscanned")
    fail_open: bool = Field(False, description="let uploads pass while clamd is out of reach, each with a record")
    cache_entries: int = Field(10_000, ge=0, le=1_000_000, description="verdicts that are remembered")
    cache_seconds: float = Field(3600.0, gt=0, le=86_400, description="how long")


class ConnectionSettings(Section):
    """What the transport takes."""

    most: int = Field(1000, ge=1, le=1_000_000, description="connections at a time")
    streams: int = Field(128, ge=1, le=100_000, description="calls in flight on one connection")
    age: float | None = Field(
        None, gt=0, le=365 * 86_400, description="seconds after which a connection is asked to go; unset: never"
    )
    age_grace: float | None = Field(None, gt=0, le=365 * 86_400, description="seconds its calls may then go on; unset: any")
