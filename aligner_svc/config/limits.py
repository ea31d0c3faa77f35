"""Settings of what the service accepts: addresses, payload limits, decoding, streams."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from aligner_svc.config.section import Section
from aligner_svc.domain import SAMPLE_RATE

MIB = 1 << 20
MAX_PAYLOAD = 1 << 30
"""Bytes one message to or from a worker process may carry, as in workers.frames; not imported, this file stays light."""


def available_cores() -> int:
    """Processors this process may use; a container's cpuset counts, the machine's size does not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    workers: int = Field(default_factory=lambda: max(1, available_cores() // 2), ge=1, le=1024, description="decoder processes")
    timeout: float = Field(120.0, gt=0, le=24 * 3600, description="wall-clock seconds one decode may take")
    sandbox: Literal["required", "best-effort", "off"] = Field(
        "best-effort", description="what workers may not do; required: the start fails where the kernel lacks a part of it"
    )


class StreamSettings(Section):
    """StreamAlign uploads."""

    concurrent: int = Field(
        8,
        ge=1,
        le=100_000,
        description="streams served at a time, upload to summary; the others wait, their senders held by flow control",
    )
    idle_timeout: float = Field(60.0, gt=0, le=24 * 3600, description="seconds a sender may be silent")
