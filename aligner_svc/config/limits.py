"""Settings of what the service accepts: addresses, payload limits, decoding, streams."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from aligner_svc.config.section import Section
from aligner_svc.domain import SAMPLE_RATE

MIB = 1 << 20
_MAX_UTF8 = 4
"""Largest number of bytes of a code point in UTF-8."""
MAX_PAYLOAD = 1 << 30
"""Maximum bytes of a message to or from a worker process. Equals workers.frames; copied to keep this module light."""


def available_cores() -> int:
    """Number of processors that this process may use, by its CPU affinity and so by a container's cpuset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ServerSettings(Section):
    """Profile, address and shutdown of the server."""

    profile: Literal["dev", "prod"] = Field(
        "dev",
        description="dev: only loopback, plaintext, no authentication, reflection; prod: authentication, TLS except on loopback",
    )
    listen: str = Field("127.0.0.1:50051", description="HOST:PORT; port 0 picks a free one")
    processes: int = Field(
        1,
        ge=1,
        le=256,
        description="processes that serve the port, each with an event loop of its own; they share workers, queue and quotas",
    )
    drain_delay: float = Field(1.0, ge=0, le=3600, description="seconds between NOT_SERVING and refusing new calls")
    drain_grace: float = Field(30.0, ge=0, le=24 * 3600, description="seconds that calls in flight may then take to finish")


class Limits(Section):
    """Upper bounds of what a request may contain."""

    unary_audio_bytes: int = Field(10 * MIB, gt=0, le=512 * MIB, description="maximum audio bytes of an Align call")
    unary_seconds: float = Field(
        60.0, gt=0, le=24 * 3600, description="seconds in which the request of a unary call has to arrive"
    )
    stream_audio_bytes: int = Field(512 * MIB, gt=0, le=MAX_PAYLOAD, description="maximum audio bytes of a StreamAlign call")
    stream_chunk_bytes: int = Field(1 * MIB, gt=0, le=64 * MIB, description="maximum audio bytes of a StreamAlign message")
    audio_seconds: float = Field(4 * 3600, gt=0, le=MAX_PAYLOAD // (2 * SAMPLE_RATE), description="maximum audio seconds")
    metadata_entries: int = Field(64, gt=0, le=10_000, description="maximum metadata entries of a call")
    metadata_bytes: int = Field(8 * 1024, gt=0, le=MIB, description="maximum bytes of a call's metadata, names included")
    transcript_chars: int = Field(200_000, gt=0, le=10_000_000, description="maximum transcript length in code points")
    transcript_words: int = Field(100_000, gt=0, le=10_000_000, description="maximum transcript length in words")
    transcript_dense: Literal["refuse", "warn"] = Field(
        "refuse", description="refuse or warn about transcripts too long for the audio"
    )

    @property
    def message_bytes(self) -> int:
        """Of the largest message: audio and transcript, and 1 MiB so that one somewhat over a limit is refused with a reason."""
        return max(self.unary_audio_bytes, self.stream_chunk_bytes) + _MAX_UTF8 * self.transcript_chars + MIB


class DecodeSettings(Section):
    """The decoder's worker processes."""

    workers: int = Field(
        default_factory=lambda: max(1, available_cores() // 2),
        ge=1,
        le=1024,
        description="decoder processes for short recordings, and as many for long ones from the first on",
    )
    containers: int = Field(
        16,
        ge=0,
        le=1024,
        description="maximum compressed uploads that are decoded while they arrive, each in a process of some 20 MB; "
        "others are decoded when they are complete",
    )
    spool_bytes: int = Field(
        768 * MIB,
        ge=0,
        description="bytes of all uploads in unlinked temporary files: those that are scanned, or have their index at the end",
    )
    timeout: float = Field(120.0, gt=0, le=24 * 3600, description="maximum wall-clock seconds of one decode")
    sandbox: Literal["required", "best-effort", "off"] = Field(
        "best-effort",
        description="confinement of decoders; required: the server does not start if the kernel lacks part of it",
    )


class StreamSettings(Section):
    """StreamAlign uploads."""

    concurrent: int = Field(
        8,
        ge=1,
        le=100_000,
        description="memory of all uploads together, as a number of uploads of the largest size; "
        "senders beyond their share of it are held back by flow control",
    )
    idle_timeout: float = Field(
        60.0, gt=0, le=24 * 3600, description="seconds that a client may send nothing; least_rate is averaged over as long"
    )
    least_rate: float = Field(
        1024.0,
        ge=0,
        le=1e9,
        description="bytes a second that an upload has to bring; a message counts for 512 at least; 0: any rate",
    )
    max_seconds: float = Field(
        5 * 3600.0, gt=0, le=7 * 24 * 3600, description="seconds that an upload may take, without the time it is held back"
    )
