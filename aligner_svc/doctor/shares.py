"""Whether the settings let one caller take the service from the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aligner_svc.config import Settings
from aligner_svc.health.findings import Finding, ok, skip, warn
from interceptors.overload.admission import Priority
from interceptors.overload.interceptor import SHARES
from interceptors.quota import classes_text
from interceptors.quota.classes import QuotaClass
from interceptors.rules.toml_text import RulesError, read_text


def shares(settings: Settings) -> Sequence[Finding]:
    """Places for calls, and memory for uploads."""
    path = settings.quota.file
    if path is None and settings.server.profile == "dev":
        return [skip("shares", "the dev profile has no callers")]
    try:
        classes = classes_text.built_in() if path is None else classes_text.parse(read_text(path), str(path))
    except RulesError:
        return [skip("shares", "the quota classes are not valid")]
    found = [*(warning for quota in classes.classes.values() for warning in _calls(settings, quota)), *_uploads(settings)]
    return found or [ok("shares", "one caller leaves room for others, in the queue and in the memory of uploads")]


def _calls(settings: Settings, quota: QuotaClass) -> Iterator[Finding]:
    queue = settings.engine.queue
    places = max(1, int(queue * SHARES[Priority[quota.priority.upper()]]))
    if quota.calls is None:
        how = "any number of calls"
    elif quota.calls.limit >= places:
        how = f"{quota.calls.limit} calls"
    else:
        return
    message = (
        f"a caller of the class {quota.name} may have {how} in flight, and the engine's queue is full for it at about {places}"
    )
    yield warn("shares", message, f"calls_in_flight below {places} in the quota class, or a longer queue: ALIGNER_ENGINE__QUEUE")


def _uploads(settings: Settings) -> Iterator[Finding]:
    stream = settings.stream
    if stream.concurrent == 1:
        message = "the memory of uploads holds one of the largest: all others wait for it beyond 64 KiB"
        yield warn("shares", message, "set ALIGNER_STREAM__CONCURRENT to 2 at least; callers share all but one of them")
    if stream.least_rate == 0:
        message = f"an upload may bring a byte every {stream.idle_timeout:g} s and keep its memory meanwhile"
        yield warn("shares", message, "set ALIGNER_STREAM__LEAST_RATE, to 100 for the slowest live sources")
