"""The classes parsed from TOML, with errors that name the file, the line and what to do about it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from interceptors.quota.classes import (
    AUDIO_DAY,
    AUDIO_MINUTE,
    BUILT_IN,
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
from interceptors.rules.toml_text import TomlText

_RATES = {REQUESTS: ("burst", 1.0), AUDIO_MINUTE: ("audio_seconds_burst", MINUTE), BYTES: ("bytes_burst", MINUTE)}
_BURSTS = {burst: rate for rate, (burst, _) in _RATES.items()}
_PRIORITIES: tuple[Priority, ...] = get_args(Priority)
_KEYS = (*(key for rate, (burst, _) in _RATES.items() for key in (rate, burst)), AUDIO_DAY, CALLS, STREAMS, "priority")
_MAX_AMOUNT = 2.0**53
"""Above it a double does not count single units."""
_MAX_FILL = 31 * DAY
"""Seconds a bucket may take to fill: counts are kept for a year at most, and no caller waits for months."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRINCIPALS = "principals"


def built_in() -> QuotaClasses:
    """The classes in force if no file is named."""
    return parse(BUILT_IN, "the built-in classes")


def parse(text: str, source: str) -> QuotaClasses:
    """From TOML; `source` names it in errors. Raises RulesError for whatever would not do what its author thinks."""
    found = TomlText.parse(text, source, ("classes", _PRINCIPALS))
    classes = {name: _class(found, name, values) for name, values in found.table("classes").items()}
    if DEFAULT not in classes:
        raise found.error("classes", what="there is no class default", do="add [classes.default], for all other principals")
    principals = found.table(_PRINCIPALS)
    for name, target in principals.items():
        _check_principal(found, name, target, classes)
    return QuotaClasses(classes, principals)


def _class(found: TomlText, name: str, values: object) -> QuotaClass:
    if not _NAME.fullmatch(name):
        what = "a class has a name of letters, digits, - and _, 64 at most"
        raise found.error(f"classes.{json.dumps(name, ensure_ascii=False)}", what=what, do="rename it")
    table = f"classes.{name}"
    if not isinstance(values, dict):
        raise found.error("classes", name, what="a class is a table", do=f"begin it with [{table}]")
    for key in values:
        found.check_known("limit", key, _KEYS, table, key)
    priority = values.get("priority", "normal")
    if priority not in _PRIORITIES:
        raise found.error(table, "priority", what="no such priority", do=f"use one of {', '.join(_PRIORITIES)}")
    for burst, rate in _BURSTS.items():
        if burst in values and rate not in values:
            raise found.error(table, burst, what=f"it has no effect without {rate}", do=f"add {rate}, or remove {burst}")
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


def _bucket(found: TomlText, table: str, key: str, values: Mapping[str, Any]) -> Bucket | None:
    if key not in values:
        return None
    amount = _amount(found, table, key, values[key])
    burst_key, seconds = _RATES.get(key, ("", DAY))
    burst = _amount(found, table, burst_key, values[burst_key]) if burst_key in values else amount
    if key == REQUESTS:
        if burst_key in values and burst < 1:
            raise found.error(table, burst_key, what="a request costs 1", do="write 1 or more")
        burst = max(burst, 1.0)
    if burst / (amount / seconds) > _MAX_FILL:
        what = "an empty bucket would take more than a month to fill"
        raise found.error(table, burst_key if burst_key in values else key, what=what, do=f"raise {key}, or lower the burst")
    return Bucket(key, amount / seconds, burst)


def _slots(found: TomlText, table: str, key: str, values: Mapping[str, Any]) -> Slots | None:
    if key not in values:
        return None
    if isinstance(values[key], float) and values[key] != math.floor(values[key]):
        raise found.error(table, key, what="calls are counted whole", do="write a whole number")
    return Slots(key, int(_amount(found, table, key, values[key])))


def _amount(found: TomlText, table: str, key: str, value: object) -> float:
    """Above 0: a caller that may do nothing at all is to be denied by the policy."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_AMOUNT:
        do = "leave it out for no limit; to shut callers out, use the policy" if value == 0 else "write it without quotes"
        raise found.error(table, key, what="a number above 0 is needed", do=do)
    return float(value)


def _check_principal(found: TomlText, name: str, target: object, classes: Mapping[str, QuotaClass]) -> None:
    if name == "*":
        do = f"change the class {DEFAULT}, or write mtls:*, jwt:* or key:*"
        raise found.error(_PRINCIPALS, name, what=f"every principal is in the class {DEFAULT} already", do=do)
    fault = pattern_fault(name)
    if fault is not None:
        raise found.error(_PRINCIPALS, name, what=fault[0], do=fault[1])
    if not isinstance(target, str):
        raise found.error(_PRINCIPALS, name, what="the name of one class is needed", do='write it as "default"')
    found.check_known("class", target, classes, _PRINCIPALS, name, target)
