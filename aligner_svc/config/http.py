"""Settings of the HTTP door."""

from __future__ import annotations

from pydantic import Field

from aligner_svc.config.section import Section


class HttpSettings(Section):
    """Calls over HTTP/1.1: JSON, forms, Connect, gRPC-Web. Behind the same guards, TLS and limits as gRPC."""

    listen: str | None = Field(None, description="HOST:PORT for calls over HTTP/1.1, e.g. 127.0.0.1:8080; unset: none")
    timeout: float = Field(
        300.0, gt=0, le=24 * 3600, description="seconds that a call over HTTP may take if its client names no time"
    )
