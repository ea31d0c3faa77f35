"""Which checks there are for these settings.

What they share is imported with them, on one thread: threads that import at the same time can lock each other out.
"""

from __future__ import annotations

from collections.abc import Sequence

from aligner_svc.config import Settings
from aligner_svc.doctor import engine, files, machine, network, services
from aligner_svc.health.findings import Check, blocking

NAMES = (
    *("settings", "listen", "tls", "auth", "policy", "quotas", "jwks", "keys", "redis", "clamd", "audit"),
    *("engine", "sandbox", "files", "memory", "cpu", "clock", "target"),
)
"""In the order they are shown."""


def checks(settings: Settings) -> Sequence[Check]:
    """All that these settings have something to check for; a check that is not asked for says so."""
    return (
        blocking("listen", lambda: network.listen(settings)),
        blocking("tls", lambda: files.tls(settings)),
        blocking("auth", lambda: files.auth(settings)),
        blocking("policy", lambda: files.policy(settings)),
        blocking("quotas", lambda: files.quotas(settings)),
        Check("jwks", lambda: services.jwks(settings), patience=1.2),
        Check("keys", lambda: services.keys(settings)),
        Check("redis", lambda: services.redis(settings)),
        Check("clamd", lambda: services.clamd(settings), patience=2.0),
        blocking("audit", lambda: files.audit(settings)),
        blocking("engine", lambda: engine.engine(settings), patience=12.0),  # torch alone takes seconds to import
        Check("sandbox", lambda: machine.sandbox(settings), patience=2.0),
        blocking("files", lambda: machine.open_files(settings)),
        blocking("memory", machine.memory),
        blocking("cpu", lambda: machine.cpu(settings)),
        blocking("clock", machine.clock),
    )
