"""Settings of quotas, overload control, abuse blocking, virus scans and connections."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from aligner_svc.config.section import Names, Section


class QuotaSettings(Section):
    """Quotas per principal. In the dev profile only if a file is set."""

    file: Path | None = Field(None, description="TOML file of quota classes and their members; unset: the built-in class")
    redis: SecretStr | None = Field(
        None, description="redis://, rediss:// or unix:// URL where all servers count together; unset: each server counts alone"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="servers that share the limits while Redis is unavailable")


class OverloadSettings(Section):
    """Load shedding."""

    adaptive: bool = Field(True, description="refuse calls early, when the waiting time for the engine grows")
    pressure: bool = Field(True, description="refuse more calls while the control group is short of memory or CPU")
    unfinished: int = Field(
        256,
        ge=2,
        le=100_000,
        description="maximum calls whose requests are still arriving; beyond it the caller with the most of them loses one",
    )
    reads: int = Field(
        6, ge=1, le=10_000, description="Align requests of one caller that are read at a time; its others wait to be read"
    )


class AbuseSettings(Section):
    """Limits per address above which it is blocked for a while. In the prod profile only."""

    enabled: bool = Field(True, description="count calls and failures per address, and block addresses above a limit")
    shadow: bool = Field(False, description="record which addresses would be blocked, without blocking them")
    calls_per_minute: int | None = Field(None, ge=1, description="calls before an address is blocked; unset: unlimited")
    failures_per_minute: int = Field(20, ge=1, le=1_000_000, description="refused credentials before an address is blocked")
    invalid_per_minute: int = Field(60, ge=1, le=1_000_000, description="invalid requests before an address is blocked")
    block_seconds: float = Field(30.0, gt=0, le=86_400, description="seconds of the first block; each further one doubles")
    longest_block_seconds: float = Field(3600.0, gt=0, le=7 * 86_400, description="maximum seconds of a block")
    trusted: Names = Field(
        ("127.0.0.0/8", "::1/128"), description="networks never counted, such as proxies and sidecars that many clients share"
    )
    entries: int = Field(100_000, ge=100, le=10_000_000, description="maximum addresses remembered")

    @field_validator("trusted")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)  # raises ValueError with a message for users
        return value


class AntivirusSettings(Section):
    """ClamAV, which scans every upload before it is decoded. Without an address there are no scans."""

    address: str | None = Field(None, description="address of clamd: unix:/run/clamav/clamd.ctl or tcp://127.0.0.1:3310")
    stream_max_bytes: int = Field(
        0, ge=0, le=1 << 32, description="maximum bytes sent for a scan, at most clamd's StreamMaxLength; 0: the largest upload"
    )
    timeout: float = Field(5.0, gt=0, le=600, description="seconds to connect, for a command and for each chunk")
    scan_timeout: float = Field(60.0, gt=0, le=3600, description="seconds from the last chunk to the verdict")
    connections: int = Field(16, ge=2, le=1000, description="maximum connections to clamd")
    skip_pcm: bool = Field(False, description="do not scan headerless audio")
    fail_open: bool = Field(False, description="let uploads pass unscanned while clamd is unavailable, and record each")
    cache_entries: int = Field(10_000, ge=0, le=1_000_000, description="maximum verdicts remembered")
    cache_seconds: float = Field(3600.0, gt=0, le=86_400, description="seconds that a verdict is remembered")
    cache_shared: bool = Field(
        False, description="look verdicts up in quota.redis as well: who can write there can call malware clean"
    )


class ConnectionSettings(Section):
    """Limits of connections."""

    most: int = Field(1000, ge=1, le=1_000_000, description="maximum connections")
    per_address: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="maximum connections of an IPv4 address or an IPv6 /64; the idlest above it are closed",
    )
    streams: int = Field(128, ge=1, le=100_000, description="maximum calls in flight per connection")
    watches: int = Field(1000, ge=1, le=1_000_000, description="maximum open health Watches, and unfinished health requests")
    watches_per_address: int = Field(100, ge=1, le=1_000_000, description="the same of one address")
    age: float | None = Field(
        None, gt=0, le=365 * 86_400, description="seconds after which a client is asked to reconnect; unset: never"
    )
    age_grace: float | None = Field(None, gt=0, le=365 * 86_400, description="seconds that its calls may then take; unset: any")
