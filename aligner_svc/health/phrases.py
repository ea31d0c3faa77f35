"""What is said of each thing a server depends on, and what to do about it.

The doctor says it of a machine before a start, a running server of itself (see readiness): in the same words, so that
either's are found in the other and in the documentation. Each is the finding of somebody who depends on the thing: FAIL.
A server that serves without it by design softens that itself.
"""

from __future__ import annotations

from typing import Final

from aligner_svc.health.findings import Finding, Severity

CERTIFICATE_SOON: Final = 14 * 86_400.0
"""Seconds before the end of a certificate from which it is warned of."""
SIGNATURES_OLD: Final = 3 * 86_400.0
"""Seconds. Age of virus signatures that is warned of; ClamAV's own come out every day."""

NOT_SERVING: Final = "it starts, drains, or its engine has failed: its log says which"


def span(seconds: float) -> str:
    """A time for people, in the largest unit of which there are two."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def redis_unavailable(where: str) -> Finding:
    """`where`: its URL as `interceptors.quota.stores.redis_client.place` has it."""
    return redis_unusable(f"{where} cannot be reached")


def redis_unusable(said: str) -> Finding:
    hint = "is it up, and ALIGNER_QUOTA__REDIS right? Until it is there each server counts its share by itself"
    return Finding("redis", Severity.FAIL, said, hint)


def clamd_unavailable(address: str, reason: str, *, fail_open: bool) -> Finding:
    """`fail_open`: what happens to uploads meanwhile."""
    then = "uploads pass unscanned" if fail_open else "every upload is refused"
    return Finding("clamd", Severity.FAIL, f"{address}: {reason or 'it has not answered yet'}", f"is it up? Until it is, {then}")


def clamd_there(address: str, version: str, signatures_age: float | None) -> Finding:
    """It answers; `signatures_age` in seconds, None: it has none of ClamAV's own. OK, or WARN of old signatures and none."""
    said = f"{address}: {version}"
    if signatures_age is None:
        hint = "freshclam fetches ClamAV's own; what an operator added is not counted here"
        return Finding("clamd", Severity.WARN, f"{said}, with none of ClamAV's signatures", hint)
    if signatures_age > SIGNATURES_OLD:
        return Finding("clamd", Severity.WARN, f"{said}, {signatures_age / 86_400:.0f} days old", "does freshclam run?")
    return Finding("clamd", Severity.OK, said)


def issuer_keys_never_got(issuer: str, why: str) -> Finding:
    hint = "its tokens are refused until its keys were got once: is the URL right, and does the way there lead through a proxy?"
    return Finding("jwks", Severity.FAIL, f"{issuer}: {why}", hint)


def issuer_keys_old(issuer: str, why: str, age: float, *, stale: bool) -> Finding:
    """They were got `age` seconds ago and not since. `stale`: they are not believed any longer."""
    said = f"{issuer}: {why}; its keys are from {span(age)} ago"
    if stale:
        hint = "its tokens are refused until its keys are got again: is it up, and the way there open?"
        return Finding("jwks", Severity.FAIL, f"{said}, too old to be believed", hint)
    hint = "those at hand go on, of a URL until they are jwt.keys_stale seconds old: is it up, and the way there open?"
    return Finding("jwks", Severity.WARN, said, hint)


def key_database_unavailable(where: str, why: str) -> Finding:
    """`where` without user and password."""
    hint = "is it up, and ALIGNER_KEYS__DATABASE right? Without it keys that are known go on for keys.outage seconds"
    return Finding("keys", Severity.FAIL, f"{where}: {why}", hint)


def certificate_ends(left: float, said: str = "") -> Finding:
    """`left`: seconds until the first of the server's certificate and its clients' CAs ends; `said` of them before that."""
    ends = f"the first of them ends in {span(left)}" if left > 0 else f"the first of them ended {span(-left)} ago"
    state = Severity.FAIL if left <= 0 else Severity.WARN if left < CERTIFICATE_SOON else Severity.OK
    hint = "" if state is Severity.OK else "renew it: a server that runs takes the new files by itself"
    return Finding("tls", state, f"{said or 'the certificates in force'}; {ends}", hint)


def engine_failed(name: str, why: str) -> Finding:
    hint = "it is tried again by itself; does that not help, restart the server, on another machine if it comes back"
    return Finding("engine", Severity.FAIL, f"{name}: out of service: {why}", hint)


def workers_missing(pool: str, up: int, size: int) -> Finding:
    """Of the worker processes of a `pool`, `up` and not `size` are there. WARN as long as there is one."""
    hint = "new ones are started by themselves; where none comes up, the log says why after `next try in`"
    said = f"{pool}: {up} of {size} worker processes are up"
    return Finding("workers", Severity.WARN if up else Severity.FAIL, said, hint)
