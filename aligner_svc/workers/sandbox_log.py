"""What the start-up log says of the children's sandbox."""

from __future__ import annotations

import logging

from aligner_svc.workers.pool import WorkerPool

log = logging.getLogger(__name__)


def log_sandbox(pool: WorkerPool) -> None:
    """One line about the sandbox of a pool's children, which are all alike: what holds, and what does not and why."""
    in_force, missing = pool.greeting.get("sandbox"), pool.greeting.get("missing")
    held = ", ".join(map(str, in_force)) if isinstance(in_force, list) else ""
    lacking = ", ".join(f"{layer} ({why})" for layer, why in missing.items()) if isinstance(missing, dict) else ""
    log.log(
        logging.WARNING if lacking else logging.INFO,
        "%s sandbox: %s%s",
        pool.name,
        held or "none",
        f"; missing: {lacking}" if lacking else "",
    )
