"""JSON: everything in the alignment."""

from __future__ import annotations

import json

from aligner_client.alignment import Alignment, Channel, Phone, Stretch, Warning, Word

_PLACES = 3
"""Milliseconds, as exact as the service's own answer."""


def render_json(alignment: Alignment) -> str:
    """`{"words": [...], "summary": {...}}`, times in seconds, text as in the transcript.

    `speaker`, `phones` and `channel` where there are.
    """
    words = [
        {
            "text": word.text,
            "start": round(word.start, _PLACES),
            "end": round(word.end, _PLACES),
            "confidence": round(word.confidence, _PLACES),
            "status": word.status.value,
            "char_start": word.char_start,
            "char_end": word.char_end,
            **({"speaker": word.speaker} if word.speaker else {}),
            **({"phones": [_phone(phone) for phone in word.phones]} if word.phones else {}),
            **_channel(word),
        }
        for word in alignment.words
    ]
    timing = alignment.timing
    summary = {
        "audio_seconds": round(alignment.audio_seconds, _PLACES),
        "audio_start": round(alignment.audio_start, _PLACES),
        "engine": alignment.engine,
        "language": alignment.language,
        "match_score": round(alignment.match_score, _PLACES),
        **({"phone_set": alignment.phone_set} if alignment.phone_set else {}),
        **({"channels": [_score(one) for one in alignment.channels]} if alignment.channels else {}),
        "unaligned": [
            {"start": round(at.start, _PLACES), "end": round(at.end, _PLACES), **_channel(at)} for at in alignment.unaligned
        ],
        "warnings": [{"code": one.code, "message": one.message, **_channel(one)} for one in alignment.warnings],
        "timing": {name: round(getattr(timing, name), _PLACES) for name in ("queue", "decode", "scan", "align", "total")},
    }
    # NaN is not JSON: an error is better than a file that no other program can read.
    return json.dumps({"words": words, "summary": summary}, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _channel(of: Word | Stretch | Warning) -> dict[str, int]:
    return {} if of.channel is None else {"channel": of.channel}


def _score(channel: Channel) -> dict[str, float]:
    return {"channel": channel.number, "match_score": round(channel.match_score, _PLACES)}


def _phone(phone: Phone) -> dict[str, str | float]:
    return {"symbol": phone.symbol, "start": round(phone.start, _PLACES), "end": round(phone.end, _PLACES)}
