"""JSON: everything the alignment holds."""

from __future__ import annotations

import json

from aligner_svc.domain import Alignment

_PLACES = 3
"""Milliseconds, as exact as the service's own answer."""


def render_json(alignment: Alignment) -> str:
    """`{"words": [...], "summary": {...}}`, times in seconds, text as the caller wrote it."""
    words = [
        {
            "text": word.text,
            "start": round(word.start, _PLACES),
            "end": round(word.end, _PLACES),
            "confidence": round(word.confidence, _PLACES),
            "status": word.status.value,
            "char_start": word.char_start,
            "char_end": word.char_end,
        }
        for word in alignment.words
    ]
    timing = alignment.timing
    summary = {
        "audio_seconds": round(alignment.audio_seconds, _PLACES),
        "engine": alignment.engine,
        "language": alignment.language,
        "match_score": round(alignment.match_score, _PLACES),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in alignment.warnings],
        "timing": {
            "queue": round(timing.queue, _PLACES),
            "decode": round(timing.decode, _PLACES),
            "scan": round(timing.scan, _PLACES),
            "align": round(timing.align, _PLACES),
            "total": round(timing.total, _PLACES),
        },
    }
    # NaN is not JSON: better an error here than a file that no other program reads.
    return json.dumps({"words": words, "summary": summary}, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
