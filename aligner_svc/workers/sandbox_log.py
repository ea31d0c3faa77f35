"""The line about the sandbox in the start-up log."""

from __future__ import annotations

import logging

from aligner_svc.workers.pool import WorkerPool

log = logging.getLogger(__name__)


def log_sandbox(pool: WorkerPool) -> None:
    """Log which layers of the sandbox are in force in a pool's children, which are all alike, and which are missing and why."""
    in_force, missing = pool.greeting.get("sandbox"), pool.greeting.get("missing")
    held = ", ".join(map(str, in_force)) if isinstance(in_force, list) else ""
    lacking = ", ".join(f"{layer} ({why})" for layer, why in missing.items()) if isinstance(missing, dict) else ""
    level = logging.WARNING if lacking else logging.INFO
    log.log(level, "%s sandbox: %s%s", pool.name, held or "none", f"; missing: {lacking}" if lacking else "")
