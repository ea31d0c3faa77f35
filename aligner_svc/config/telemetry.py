"""Settings of what is seen from outside: metrics, logs, traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from aligner_svc.config.section import Section, split_names


class MetricsSettings(Section):
    """Prometheus metrics on a port of their own, in clear and for whoever reaches it."""

    listen: str | None = Field(None, description="HOST:PORT for Prometheus, e.g. 127.0.0.1:9464; unset: no metrics")


class LogSettings(Section):
    """The log, on stderr."""

    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, JSON elsewhere")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged at least")


class TracingSettings(Section):
    """Traces, sent to an OpenTelemetry collector. Without an endpoint there are none, and nothing is spent on them."""

    endpoint: str | None = Field(None, description="collector's OTLP/gRPC address: https://HOST:4317, or http:// on loopback")
    ratio: float = Field(0.1, ge=0, le=1, description="share of the traces that begin here")
    follow_caller: bool = Field(True, description="record what the caller records; false where strangers call")
    keep_slower: float | None = Field(None, gt=0, le=86_400, description="seconds from which on a call is kept in any case")
    formats: Annotated[tuple[Literal["tracecontext", "b3", "b3multi"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("tracecontext",), min_length=1, description="how callers tell their trace, by precedence"
    )
    headers: SecretStr = Field(SecretStr(""), description="name=value,... for the collector: its key")
    ca: Path | None = Field(None, description="PEM file of the collector's CA; unset: the usual roots")
