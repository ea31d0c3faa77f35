"""The virus scan of uploads: what of a request is scanned, and what may skip it."""

from __future__ import annotations

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.rpc.request_facts import audio_of, headerless
from aligner_svc.rpc.services import EXEMPT, STREAMS
from interceptors import Record
from interceptors.antivirus.clamav import Clamd
from interceptors.antivirus.interceptor import Scan, ScanRules
from interceptors.antivirus.scanner import Antivirus
from interceptors.antivirus.verdicts import SharedVerdicts


def build_scan(settings: Settings, record: Record) -> tuple[Antivirus, Scan]:
    """The scanner, to start and close with the server, and the guard. Raises StartError."""
    wanted, limits = settings.antivirus, settings.limits
    assert wanted.address is not None
    try:
        clamd = Clamd(wanted.address, timeout=wanted.timeout, scan_timeout=wanted.scan_timeout)
    except ValueError as error:
        raise StartError(f"antivirus.address: {error}") from None
    antivirus = Antivirus(
        clamd,
        stream_max_bytes=wanted.stream_max_bytes or max(limits.stream_audio_bytes, limits.unary_audio_bytes),
        connections=wanted.connections,
        cache_entries=wanted.cache_entries,
        cache_seconds=wanted.cache_seconds,
        shared=_shared(settings),
    )
    skip = headerless if wanted.skip_pcm else lambda message: False
    rules = ScanRules(audio_of, skip, record, field="audio", fail_open=wanted.fail_open)
    return antivirus, Scan(antivirus, rules, streams=STREAMS, exempt=EXEMPT)


def _shared(settings: Settings) -> SharedVerdicts | None:
    url = settings.quota.redis
    if not settings.antivirus.cache_shared or url is None:
        return None
    from aligner_svc.wiring.shared import RedisVerdicts  # noqa: PLC0415 - redis is imported where it is used alone

    return RedisVerdicts(url.get_secret_value(), settings.antivirus.cache_seconds)
