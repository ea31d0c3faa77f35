"""What is typed after `aligner keys`: times, labels, scopes and ids."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for sqlalchemy

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence

from aligner_svc.cli.failures import USAGE, Failure, warn

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST = 10 * 366 * 86_400
_LABEL = 200
# A scope-token of RFC 6749, without the comma: whoever types one means two scopes.
_SCOPE = re.compile(r"[!#-+\--\[\]-~]{1,64}")
_WHOLE_KEY = re.compile(r"[a-z][a-z0-9]*_([0-9a-z]{12})_[0-9A-Za-z]{20,}")
_STDIN_LIMIT = 4096


def seconds(flag: str, text: str, *, zero: bool = False) -> float:
    """90d, 24h, 30m, 45s or 2w in seconds, up to 10 years. Raises Failure."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip(), re.ASCII)
    hint = "write 90d, 24h, 30m or 45s"
    if found is None:
        raise Failure(f"{flag}: not a time", why=text, hint=hint, exit_code=USAGE)
    value = int(found[1]) * _UNITS[found[2]]
    if value > _LONGEST:
        raise Failure(f"{flag}: more than ten years", why=text, hint="a key that does not end: --expires never", exit_code=USAGE)
    if value == 0 and not zero:
        raise Failure(f"{flag}: no time at all", why=text, hint=hint, exit_code=USAGE)
    return float(value)


def lifetime(text: str) -> float | None:
    """Of --expires, in seconds; None for `never`. Raises Failure."""
    return None if text.strip().lower() == "never" else seconds("--expires", text)


def label(text: str) -> str:
    """Raises Failure."""
    text = text.strip()
    if not text or len(text) > _LABEL or not text.isprintable():
        why = f"1 to {_LABEL} printable characters are needed"
        raise Failure("--label: not a label", why=why, hint="say who uses the key: --label 'billing batch'", exit_code=USAGE)
    return text


def scopes(given: Sequence[str]) -> frozenset[str]:
    """Raises Failure; warns of one that the built-in policy does not know."""
    from interceptors.auth.policy import SCOPES

    for scope in given:
        if not _SCOPE.fullmatch(scope):
            hint = "one name at a time: --scope align --scope admin"
            raise Failure("--scope: not the name of a scope", why=scope, hint=hint, exit_code=USAGE)
        if scope not in SCOPES:
            near = difflib.get_close_matches(scope, SCOPES, n=1)
            known = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(SCOPES))}"
            warn(f"scope {scope} grants nothing, unless [scopes] of the policy gives it a meaning; {known}")
    return frozenset(given)


def key_id(text: str, prefix: str) -> str:
    """Of an id, of a principal as logs have it (key:ID), or with - of the whole key on stdin. Raises Failure."""
    from interceptors.auth.api_keys import format as api_key

    if text == "-":
        # Limited, so that a wrong pipe does not fill the memory. Never repeated in a message.
        key = api_key.parse(sys.stdin.read(_STDIN_LIMIT).strip(), prefix)
        if key is None:
            why = f"it does not begin with {prefix}_, or is cut or mistyped (its last six characters are a checksum)"
            raise Failure("stdin holds no API key", why=why, hint="`aligner keys list` shows ids", exit_code=USAGE)
        return key.id
    whole = _WHOLE_KEY.fullmatch(text)
    if whole is not None:
        raise Failure(
            "a whole key was given on the command line",
            why="other users of this machine and the shell's history can read it there",
            hint=f"name its id: {whole[1]}; or pipe the key and write - for it",
            exit_code=USAGE,
        )
    found = text.removeprefix("key:").lower()
    if not api_key.is_id(found):
        raise Failure("not the id of a key", why=text, hint="`aligner keys list` shows ids", exit_code=USAGE)
    return found
