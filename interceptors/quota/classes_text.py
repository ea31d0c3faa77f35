"""The classes as their author wrote them: TOML whose every fault is told with file, line and what to do."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

from interceptors.quota.classes import (
    AUDIO_DAY,
    AUDIO_MINUTE,
    BYTES,
    CALLS,
    DAY,
    DEFAULT,
    MINUTE,
    REQUESTS,
    STREAMS,
    Priority,
    QuotaClass,
    QuotaClasses,
)
from interceptors.quota.stores.base import Bucket, Slots
from interceptors.rules.patterns import pattern_fault
from interceptors.rules.toml_text import PolicyError, PolicyText

LONGEST = 256 << 10
"""Bytes of the file, some 4000 principals: it is parsed between two calls, which takes 0.1 s then."""

_RATES = {REQUESTS: ("burst", 1.0), AUDIO_MINUTE: ("audio_seconds_burst", MINUTE), BYTES: ("bytes_burst", MINUTE)}
_BURSTS = {burst: rate for rate, (burst, _) in _RATES.items()}
_SLOTS = (CALLS, STREAMS)
_PRIORITIES: tuple[Priority, ...] = get_args(Priority)
_KEYS = (*(key for rate, (burst, _) in _RATES.items() for key in (rate, burst)), AUDIO_DAY, *_SLOTS, "priority")
_MOST = 2.0**53
"""Beyond it a double counts no single units."""
_SLOWEST = 31 * DAY
"""Seconds a bucket may take to fill: counts are kept for a year at most, and nobody waits for months."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRINCIPALS = "principals"


class QuotaError(Exception):
    """Classes that cannot be used: "FILE, line N: what; what to do"."""


def parse(text: str, source: str) -> QuotaClasses:
    """From TOML; `source` names it in errors. Raises QuotaError for whatever would not do what its author thinks."""
    if len(text) > LONGEST:
        raise too_long(source)
    try:
        found = _toml(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"), source)  # a byte order mark, as some editors write
        _check_names(found, "", found.tables, ("classes", _PRINCIPALS), "[classes.NAME] and [principals]")
        classes = {name: _class(found, name, values) for name, values in found.table("classes").items()}
        if DEFAULT not in classes:
            raise found.error("classes", what="there is no class default", do="write [classes.default], for whoever has no other")
        principals = found.table(_PRINCIPALS)
        for name, target in principals.items():
            _check_principal(found, name, target, classes)
    except PolicyError as error:
        raise QuotaError(str(error)) from None
    return QuotaClasses(classes, principals, text)


def too_long(source: str) -> QuotaError:
    """The error for more than LONGEST."""
    return QuotaError(f"{source}: larger than {LONGEST >> 10} KiB; give classes by patterns")


def _toml(text: str, source: str) -> PolicyText:
    try:
        return PolicyText(source, text, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError):
        return PolicyText.parse(text, source)  # which knows how to tell the place


def _class(found: PolicyText, name: str, values: object) -> QuotaClass:
    if not _NAME.fullmatch(name):
        what = "a class has a name of letters, digits, - and _, 64 at most"
        raise found.error(f"classes.{json.dumps(name, ensure_ascii=False)}", what=what, do="rename it")
    table = f"classes.{name}"
    if not isinstance(values, dict):
        raise found.error("classes", name, what="a class is a table", do=f"begin it with [{table}]")
    _check_names(found, table, values, _KEYS, ", ".join(_KEYS))
    priority = values.get("priority", "normal")
    if priority not in _PRIORITIES:
        raise found.error(table, "priority", what="no such priority", do=f"there are {', '.join(_PRIORITIES)}")
    for burst, rate in _BURSTS.items():
        if burst in values and rate not in values:
            raise found.error(table, burst, what=f"{burst} means nothing without {rate}", do="add that, or remove this")
    return QuotaClass(
        name,
        priority,
        requests=_bucket(found, table, REQUESTS, values),
        audio_minute=_bucket(found, table, AUDIO_MINUTE, values),
        audio_day=_bucket(found, table, AUDIO_DAY, values),
        bytes=_bucket(found, table, BYTES, values),
        calls=_slots(found, table, CALLS, values),
        streams=_slots(found, table, STREAMS, values),
    )


def _bucket(found: PolicyText, table: str, key: str, values: Mapping[str, Any]) -> Bucket | None:
    if key not in values:
        return None
    amount = _amount(found, table, key, values[key])
    burst_key, seconds = _RATES.get(key, ("", DAY))
    burst = _amount(found, table, burst_key, values[burst_key]) if burst_key in values else amount
    if key == REQUESTS:
        if burst_key in values and burst < 1:
            raise found.error(table, burst_key, what="a request costs 1", do="write 1 or more")
        burst = max(burst, 1.0)
    if burst / (amount / seconds) > _SLOWEST:
        what = "it would take more than a month to have the burst again"
        raise found.error(table, burst_key if burst_key in values else key, what=what, do=f"raise {key}, or lower the burst")
    return Bucket(key, amount / seconds, burst)


def _slots(found: PolicyText, table: str, key: str, values: Mapping[str, Any]) -> Slots | None:
    if key not in values:
        return None
    if isinstance(values[key], float) and values[key] != math.floor(values[key]):
        raise found.error(table, key, what="calls are counted whole", do="write a whole number")
    return Slots(key, int(_amount(found, table, key, values[key])))


def _amount(found: PolicyText, table: str, key: str, value: object) -> float:
    """Above 0: who may do nothing is shut out by the policy, and told so there."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        do = "leave it out for no limit; to shut callers out, use the policy" if value == 0 else "write it without quotes"
        raise found.error(table, key, what="a number above 0 is needed", do=do)
    return float(value)


def _check_principal(found: PolicyText, name: str, target: object, classes: Mapping[str, QuotaClass]) -> None:
    if name == "*":
        do = f"change the class {DEFAULT}, or write mtls:*, jwt:* or key:*"
        raise found.error(_PRINCIPALS, name, what=f"everybody is in the class {DEFAULT} already", do=do)
    fault = pattern_fault(name)
    if fault is not None:
        raise found.error(_PRINCIPALS, name, what=fault[0], do=fault[1])
    if not isinstance(target, str):
        raise found.error(_PRINCIPALS, name, what="the name of one class is needed", do='write it as "default"')
    if target not in classes:
        near = difflib.get_close_matches(target, list(classes), n=1)
        do = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(classes)}"
        raise found.error(_PRINCIPALS, name, target, what=f"no such class: {json.dumps(target[:200])}", do=do)


def _check_names(found: PolicyText, table: str, values: Mapping[str, Any], known: tuple[str, ...], all_of_them: str) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            do = f"did you mean {near[0]}?" if near else f"there are {all_of_them}"
            if table:
                raise found.error(table, name, what="no such limit", do=do)
            raise found.error(name, what=f"no such table: {json.dumps(name[:200])}", do=do)
