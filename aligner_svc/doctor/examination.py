"""The checks for given settings.

Modules that several checks import are imported here, on one thread: threads that import at the same time can deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence

from aligner_svc.config import Settings
from aligner_svc.doctor import engine, files, machine, network, services, shares
from aligner_svc.health.findings import Check, blocking

NAMES = (
    *("settings", "listen", "tls", "auth", "policy", "quotas", "shares", "jwks", "keys", "redis", "clamd", "audit"),
    *("engine", "sandbox", "files", "memory", "cpu", "clock", "target"),
)
"""In the order they are shown."""


def checks(settings: Settings) -> Sequence[Check]:
    """All checks but those of the settings and the target. One that the settings do not use gives a SKIP."""
    return (
        blocking("listen", lambda: network.listen(settings)),
        blocking("tls", lambda: files.tls(settings)),
        blocking("auth", lambda: files.auth(settings)),
        blocking("policy", lambda: files.policy(settings)),
        blocking("quotas", lambda: files.quotas(settings)),
        blocking("shares", lambda: shares.shares(settings)),
        Check("jwks", lambda: services.jwks(settings), timeout_factor=1.2),
        Check("keys", lambda: services.keys(settings)),
        Check("redis", lambda: services.redis(settings)),
        Check("clamd", lambda: services.clamd(settings), timeout_factor=2.0),
        blocking("audit", lambda: files.audit(settings)),
        blocking("engine", lambda: engine.engine(settings), timeout_factor=12.0),  # importing torch alone takes seconds
        Check("sandbox", lambda: machine.sandbox(settings), timeout_factor=2.0),
        blocking("files", lambda: machine.open_files(settings)),
        blocking("memory", machine.memory),
        blocking("cpu", lambda: machine.cpu(settings)),
        blocking("clock", machine.clock),
    )
