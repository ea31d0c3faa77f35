"""The findings about what a server depends on, each with what to do.

`aligner doctor` before a start and a running server's /ready (see readiness) use the same words, so that either's are found
in the other and in the documentation. The severity is FAIL where the server needs the dependency; readiness lowers it where
the server works without it by design.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from aligner_svc.health.findings import Finding, Severity, fail, ok, warn

CERTIFICATE_SOON: Final = 14 * 86_400.0
"""Seconds before a certificate expires from which on it is warned about."""
SIGNATURES_OLD: Final = 3 * 86_400.0
"""Seconds. Age of virus signatures that is warned about; ClamAV publishes new ones every day."""

NOT_SERVING: Final = "it is starting, draining, or its engine or decoders do not work: its log and /ready say which"


def span(seconds: float) -> str:
    """A time for people, in the largest unit of which there are two."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def redis_unavailable(where: str) -> Finding:
    """`where`: its URL without credentials, from `interceptors.quota.stores.redis_client.place`."""
    return redis_unusable(f"{where} cannot be reached")


def redis_unusable(message: str) -> Finding:
    hint = "is it up, and ALIGNER_QUOTA__REDIS right? Until it answers, each server counts its own share of the quotas"
    return fail("redis", message, hint)


def clamd_unavailable(address: str, reason: str, *, fail_open: bool) -> Finding:
    """`fail_open`: uploads pass meanwhile."""
    meanwhile = "uploads pass unscanned" if fail_open else "every upload is refused"
    return fail("clamd", f"{address}: {reason or 'it has not answered yet'}", f"is it up? Until it answers, {meanwhile}")


def clamd_available(address: str, version: str, signatures_age: float | None) -> Finding:
    """OK, or WARN if its signatures are old or missing. `signatures_age`: seconds; None: it has none of ClamAV's own."""
    message = f"{address}: {version}"
    if signatures_age is None:
        hint = "freshclam fetches ClamAV's own; signatures that an operator added are not counted"
        return warn("clamd", f"{message}, with none of ClamAV's signatures", hint)
    if signatures_age > SIGNATURES_OLD:
        return warn("clamd", f"{message}, signatures {signatures_age / 86_400:.0f} days old", "does freshclam run?")
    return ok("clamd", message)


def issuer_keys_missing(issuer: str, why: str) -> Finding:
    hint = "its tokens are refused until its keys are fetched: is the URL right, and does it need a proxy?"
    return fail("jwks", f"{issuer}: {why}", hint)


def issuer_keys_old(issuer: str, why: str, age: float, *, stale: bool) -> Finding:
    """The keys were last fetched `age` seconds ago. `stale`: they are no longer trusted."""
    message = f"{issuer}: {why}; its keys were fetched {span(age)} ago"
    if stale:
        hint = "its tokens are refused until its keys are fetched again: is it up and reachable?"
        return fail("jwks", f"{message}, too old to be trusted", hint)
    hint = "the present keys stay in use, those of a URL until they are jwt.keys_stale seconds old: is it up and reachable?"
    return warn("jwks", message, hint)


def key_database_unavailable(where: str, why: str) -> Finding:
    """`where` without user and password."""
    hint = "is it up, and ALIGNER_KEYS__DATABASE right? Meanwhile known keys stay valid for keys.outage seconds"
    return fail("keys", f"{where}: {why}", hint)


def certificate_expiry(left: float, subject: str = "the certificates in use") -> Finding:
    """`left`: seconds until the first of the server's certificate and its clients' CAs expires."""
    expires = f"the first expires in {span(left)}" if left > 0 else f"the first expired {span(-left)} ago"
    expiring = warn("tls", f"{subject}; {expires}", "renew it: a running server loads the new files by itself")
    if left <= 0:
        return replace(expiring, severity=Severity.FAIL)
    return expiring if left < CERTIFICATE_SOON else ok("tls", expiring.message)


def engine_failed(name: str, why: str) -> Finding:
    hint = "the server retries it by itself; if that does not help, restart the server, on another machine if it fails again"
    return fail("engine", f"{name}: out of service: {why}", hint)


def workers_missing(pool: str, up: int, size: int) -> Finding:
    """`up` of the `size` worker processes of a `pool` run. WARN as long as there is one."""
    hint = "the server starts new ones by itself; if that fails, the log says why before `next try in`"
    missing = warn("workers", f"{pool}: {up} of {size} worker processes are up", hint)
    return missing if up else replace(missing, severity=Severity.FAIL)
