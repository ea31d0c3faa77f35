"""JSON as a message of the API, strictly: what protobuf's own parser lets pass, and what would cost it much, is refused before.

It takes NaN, base64 with anything between its characters, and JSON of any number of values, of which 10 MB take 300 MB.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from aligner_svc.http.body import malformed
from aligner_svc.workers.threads import off_loop

_AUDIO: Final = "audio"
_VALUES: Final = 4096
"""Commas and brackets that a request may have beside those of its transcript: a message of the API has some tens of values, and
a thousand pronunciations twice as many."""
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


async def from_json(body: bytes, message: Message, transcript_chars: int) -> bytes:
    """The message in bytes; `message`: an empty one of its type. Raises CallRefusedError."""
    if sum(body.count(one) for one in (b",", b"[", b"{")) > transcript_chars + _VALUES:
        raise malformed("the JSON has more values than any request")
    return await off_loop(_from_json, body, message, size=len(body))


def _from_json(body: bytes, message: Message) -> bytes:
    tree = strict(body)
    if not isinstance(tree, dict):
        raise malformed("the JSON has to be an object")
    audio = tree.pop(_AUDIO, None) if _AUDIO in message.DESCRIPTOR.fields_by_name else None
    rest = parsed(tree, message).SerializeToString()
    return rest if audio is None else with_audio(rest, message, _decoded(audio))


def parsed(tree: dict[str, Any], message: Message) -> Message:
    """`message`, filled from `tree`. Raises CallRefusedError; the text that was sent is not in it."""
    try:
        return json_format.ParseDict(tree, message, max_recursion_depth=16)
    except (json_format.ParseError, ValueError, TypeError, RecursionError, AttributeError, KeyError):
        name = message.DESCRIPTOR.full_name
        raise malformed(f"the JSON is not that of {name}: a field is unknown or has a value of another kind") from None


def with_audio(rest: bytes, message: Message, audio: bytes) -> bytes:
    """`rest`, a message in bytes, with its audio: the fields of a message follow one another in any order."""
    number = message.DESCRIPTOR.fields_by_name[_AUDIO].number
    return b"".join((rest, _varint(number << 3 | 2), _varint(len(audio)), audio))


def strict(text: bytes | str) -> Any:
    """Without NaN, infinities and repeated names. Raises CallRefusedError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise malformed("the body is not JSON, or has a name twice, or a number that is none") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _decoded(audio: Any) -> bytes:
    """Standard or URL-safe base64, padded or not, as protobuf's JSON has it; nothing else between its characters."""
    try:
        raw: bytes = audio.encode("ascii").translate(_URL_SAFE)
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (ValueError, AttributeError):  # binascii.Error and UnicodeEncodeError are ValueErrors
        raise malformed("the audio is not base64") from None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
