"""The token and the certificates of a cluster, as files in one directory and as the variables that Ray reads."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aligner_svc.engines.base import EngineStartError

TOKEN, CA, NODE = "token", "ca", "node"
"""Names of the files; NODE and CA are those of transport/devcerts.py, each with .pem and .key."""
_MAX_MESSAGE: Final = 64 << 20
"""Bytes of one call: the longest window of any engine is 10 MB, Ray's default is 4 MiB."""

COMMON: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(_MAX_MESSAGE),
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # One event loop for a replica's calls and one for the client's, instead of two each: 2 ms less for 160 kB.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # What Ray does for itself: 204 ms of CPU a second with one replica that idles, 101 ms with these.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    "RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR": "0.5",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
"""For every process of a cluster and its clients."""


def make_token(directory: Path) -> None:
    """Write a new one unless there is one, for its owner alone. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(directory / TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def is_local(address: str) -> bool:
    """Whether HOST:PORT is on loopback."""
    return address.rpartition(":")[0] in {"127.0.0.1", "localhost"}


def environment(directory: Path, address: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process of the cluster at `address`, or a client; those in `given` that begin with RAY_ come first.

    Raises EngineStartError for a cluster without a token or without TLS: whoever reaches it would run code on every node.
    """
    kept = {name: value for name, value in given.items() if name.startswith("RAY_")}
    found = dict(COMMON)
    if is_local(address):
        found["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's name for: one machine, all on loopback
    if "RAY_AUTH_MODE" not in kept and (directory / TOKEN).exists():
        if stat.S_IMODE((directory / TOKEN).stat().st_mode) & 0o077:
            raise EngineStartError(f"{directory / TOKEN} can be read by others, who would run code on the cluster: chmod 600")
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str((directory / TOKEN).absolute())}
    if "RAY_USE_TLS" not in kept and (directory / f"{NODE}.key").exists():
        files = {"RAY_TLS_SERVER_CERT": f"{NODE}.pem", "RAY_TLS_SERVER_KEY": f"{NODE}.key", "RAY_TLS_CA_CERT": f"{CA}.pem"}
        found |= {"RAY_USE_TLS": "1"} | {name: str((directory / file).absolute()) for name, file in files.items()}
    found |= kept
    missing = []
    if found.get("RAY_AUTH_MODE") != "token":
        missing.append("no token")
    if found.get("RAY_USE_TLS") not in {"1", "true"}:
        missing.append("no TLS")
    if missing:
        hint = "aligner cluster up makes token, ca.pem, node.pem and node.key; copy them from a node (ray.directory)"
        raise EngineStartError(f"a Ray cluster with {' and '.join(missing)} is open to whoever reaches it: {hint}")
    return found
