"""The virus scan of uploads, built from the settings: what of a request is scanned, and what may go without."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.rpc.request_facts import audio_of, headerless
from interceptors import Record
from interceptors.antivirus.clamav import Clamd
from interceptors.antivirus.interceptor import Scan, ScanRules
from interceptors.antivirus.scanner import Antivirus


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
    skip = headerless if wanted.skip_pcm else _nothing
    rules = ScanRules(audio_of, skip, record, field="audio", fail_open=wanted.fail_open)
    return antivirus, Scan(antivirus, rules, streams=streams, exempt=exempt)


def _nothing(message: Any) -> bool:
    return False
