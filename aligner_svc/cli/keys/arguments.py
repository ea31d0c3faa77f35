"""The arguments of `aligner keys`: times, labels, scopes and key IDs. All functions raise Failure for invalid ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from aligner_svc.cli.failures import USAGE, Failure, did_you_mean, warn

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_MAX_SECONDS = 10 * 366 * 86_400
_MAX_LABEL = 200
# A scope-token of RFC 6749 without the comma, which would be meant as two scopes.
_SCOPE = re.compile(r"[!#-+\--\[\]-~]{1,64}")
_WHOLE_KEY = re.compile(r"[a-z][a-z0-9]*_([0-9a-z]{12})_[0-9A-Za-z]{20,}")
_STDIN_LIMIT = 4096


def seconds(flag: str, text: str, *, zero: bool = False) -> float:
    """A time of up to 10 years, such as 90d, 24h, 30m, 45s or 2w, in seconds. `zero`: whether 0 is allowed."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip(), re.ASCII)
    value = int(found[1]) * _UNITS[found[2]] if found else -1
    if value > _MAX_SECONDS:
        hint = "for a key that does not expire: --expires never"
        raise Failure(f"{flag}: more than ten years", why=text, hint=hint, exit_code=USAGE)
    if value < 0 or (value == 0 and not zero):
        raise Failure(f"{flag}: not a time", why=text, hint="write e.g. 90d, 24h, 30m or 45s", exit_code=USAGE)
    return float(value)


def lifetime(text: str) -> float | None:
    """The value of --expires in seconds, None for `never`."""
    return None if text.strip().lower() == "never" else seconds("--expires", text)


def label(text: str) -> str:
    """A label without surrounding white space."""
    text = text.strip()
    if not text or len(text) > _MAX_LABEL or not text.isprintable():
        why = f"a label has 1 to {_MAX_LABEL} printable characters"
        hint = "say who uses the key: --label 'billing batch'"
        raise Failure("--label: not a valid label", why=why, hint=hint, exit_code=USAGE)
    return text


def scopes(given: Sequence[str]) -> frozenset[str]:
    """The scopes. Warns about those that the built-in policy does not know."""
    from interceptors.auth.policy import SCOPES

    for scope in given:
        if not _SCOPE.fullmatch(scope):
            hint = "give one scope at a time: --scope align --scope admin"
            raise Failure("--scope: not the name of a scope", why=scope, hint=hint, exit_code=USAGE)
        if scope not in SCOPES:
            warn(f"scope {scope} grants nothing unless [scopes] of the policy defines it; {did_you_mean(scope, sorted(SCOPES))}")
    return frozenset(given)


def key_id(text: str, prefix: str) -> str:
    """The ID in `text`: an ID, a principal as in logs (key:ID), or - for the whole key on stdin."""
    from interceptors.auth.api_keys import format as api_key

    hint = "`aligner keys list` shows all IDs"
    if text == "-":
        # Limited, so that a wrong pipe does not fill the memory. Never repeated in a message.
        key = api_key.parse(sys.stdin.read(_STDIN_LIMIT).strip(), prefix)
        if key is None:
            why = f"it does not begin with {prefix}_, or is truncated or mistyped (its last six characters are a checksum)"
            raise Failure("stdin holds no API key", why=why, hint=hint, exit_code=USAGE)
        return key.id
    whole = _WHOLE_KEY.fullmatch(text)
    if whole is not None:
        raise Failure(
            "a whole key was given on the command line",
            why="other users of this machine and the shell's history can read it there",
            hint=f"give its id: {whole[1]}; or - and the key on stdin",
            exit_code=USAGE,
        )
    found = text.removeprefix("key:").lower()
    if not api_key.is_id(found):
        raise Failure("not the ID of a key", why=text, hint=hint, exit_code=USAGE)
    return found
