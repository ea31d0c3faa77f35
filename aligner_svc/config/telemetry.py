"""Settings of metrics, logs and traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from aligner_svc.config.section import Section, split_names


class MetricsSettings(Section):
    """Prometheus metrics on a separate port, unencrypted and without authentication."""

    listen: str | None = Field(None, description="HOST:PORT for Prometheus, e.g. 127.0.0.1:9464; unset: no metrics")


class LogSettings(Section):
    """The log, on stderr."""

    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, JSON elsewhere")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="minimum level of logged messages")


class TracingSettings(Section):
    """Traces, sent to an OpenTelemetry collector. Without an endpoint there are none, at no cost."""

    endpoint: str | None = Field(None, description="collector's OTLP/gRPC address: https://HOST:4317, or http:// on loopback")
    ratio: float = Field(0.1, ge=0, le=1, description="share of the traces begun here that are recorded")
    follow_caller: bool = Field(True, description="record what the client records; false if clients are untrusted")
    keep_slower: float | None = Field(None, gt=0, le=86_400, description="seconds from which the trace of a call is always kept")
    formats: Annotated[tuple[Literal["tracecontext", "b3", "b3multi"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("tracecontext",), min_length=1, description="formats of the trace headers of calls, by precedence"
    )
    headers: SecretStr = Field(SecretStr(""), description="name=value,... to send to the collector, such as its API key")
    ca: Path | None = Field(None, description="PEM file of the collector's CA; unset: the public CAs")
