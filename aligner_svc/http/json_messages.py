"""JSON as a message of the API, strictly: what protobuf's own parser lets pass, and what would cost it much, is refused before.

It takes NaN, base64 with anything between its characters, and JSON of any number of values, of which 10 MB take 300 MB.
"""

from __future__ import annotations

import binascii
import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from aligner_svc.http.body import malformed
from aligner_svc.workers.threads import off_loop

_AUDIO: Final = "audio"
_VALUES: Final = 4096
"""What a request may have: a message of the API has some tens of values, and pronunciations a thousand."""
_STANDARD: Final = str.maketrans("-_", "+/")


async def from_json(body: bytes, message: Message, transcript_chars: int) -> bytes:
    """The message in bytes; `message`: an empty one of its type. Raises CallRefusedError."""
    # Before it is parsed: commas and brackets, of which a transcript may have some, too.
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
    """UTF-8, without NaN, infinities and repeated names. Raises CallRefusedError."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise malformed("the body is not JSON, or has a name twice, or a number that is none") from None
    values = [tree]
    for value in values:  # it grows meanwhile
        values.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        if len(values) > _VALUES:
            raise malformed("the JSON has more values than any request")
    return tree


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
        if "-" in audio or "_" in audio:
            audio = audio.translate(_STANDARD)
        return binascii.a2b_base64(audio + "=" * (-len(audio) % 4), strict_mode=True)
    except (ValueError, TypeError, AttributeError):  # binascii.Error is a ValueError
        raise malformed("the audio is not base64") from None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
