"""JSON with one meaning: anything that two parsers may read differently is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class DuplicateMemberError(ValueError):
    """An object has a member twice. RFC 7519 leaves open which one counts: the signer may have meant the other."""


def strict_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8. Raises ValueError: not UTF-8, not JSON, nested too deeply, NaN or Infinity, not an object."""
    try:
        # Decoded first: given bytes, json.loads would also guess UTF-16 and UTF-32.
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMemberError("duplicate member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
