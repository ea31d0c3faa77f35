"""Messages between the engine and the workers of other languages: those of pocketsphinx/wire.py, and the language of a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aligner_svc.engines.pocketsphinx.wire import MalformedError, decode_request, encode_request
from aligner_svc.workers.frames import JsonValue


def window_request(
    language: str, tokens: Sequence[Sequence[str]], last: bool, complete: bool, *, live: bool = False, phones: bool = False
) -> dict[str, JsonValue]:
    return {"spoken": language, **encode_request(tokens, last, complete, live=live, phones=phones)}


def decode_window(header: Mapping[str, JsonValue]) -> tuple[str, list[list[str]], bool, bool]:
    """Raises MalformedError."""
    language = header.get("spoken")
    if not isinstance(language, str):
        raise MalformedError("no language")
    return language, *decode_request(header)
