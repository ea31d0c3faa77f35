"""The virus scan of uploads, built from the settings: what of a request is scanned, and what may go without."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.config import Settings
from interceptors import Record
from interceptors.antivirus.clamav import Clamd
from interceptors.antivirus.interceptor import Scan
from interceptors.antivirus.scanner import Antivirus

_HEADERLESS = frozenset({pb.AUDIO_ENCODING_LINEAR16, pb.AUDIO_ENCODING_FLOAT32, pb.AUDIO_ENCODING_MULAW})


def build(settings: Settings, record: Record, *, streams: Collection[str], exempt: Collection[str]) -> tuple[Antivirus, Scan]:
    """The scanner, to start and close with the server, and the guard. Raises ValueError for an address that is none."""
    wanted, limits = settings.antivirus, settings.limits
    assert wanted.address is not None
    antivirus = Antivirus(
        Clamd(wanted.address, timeout=wanted.timeout, scan_timeout=wanted.scan_timeout),
        stream_max_bytes=wanted.stream_max_bytes or max(limits.stream_audio_bytes, limits.unary_audio_bytes),
        connections=wanted.connections,
        cache_entries=wanted.cache_entries,
        cache_seconds=wanted.cache_seconds,
    )
    scan = Scan(
        antivirus,
        extract=audio_of,
        skip=_headerless if wanted.skip_pcm else _nothing,
        streams=streams,
        exempt=exempt,
        record=record,
        field="audio",
        fail_open=wanted.fail_open,
    )
    return antivirus, scan


def audio_of(message: Any) -> bytes | None:
    """The audio of an AlignRequest or a StreamAlignRequest; None where a message has none."""
    return message.audio or None if isinstance(message, pb.AlignRequest | pb.StreamAlignRequest) else None


def _headerless(message: Any) -> bool:
    """Asked of a call's first message, which has the config."""
    return isinstance(message, pb.AlignRequest | pb.StreamAlignRequest) and message.config.encoding in _HEADERLESS


def _nothing(message: Any) -> bool:
    return False
