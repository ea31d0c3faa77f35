"""The gRPC service config of aligner.v1, which clients of other languages load as it is.

Its retries are RetryPolicy's defaults and are done by this client, which also retries after a fresh token, after a stream's first
progress, and RESOURCE_EXHAUSTED if the server says when: of gRPC only the load balancing is asked for.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

FILE = "service_config.json"


def _load() -> tuple[str, dict[str, Any]]:
    config = json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    (balancing,) = config["loadBalancingConfig"]
    return next(iter(balancing)), config["methodConfig"][0]["retryPolicy"]


LOAD_BALANCING, _RETRY = _load()
ATTEMPTS: int = _RETRY["maxAttempts"]
INITIAL_BACKOFF = float(_RETRY["initialBackoff"].removesuffix("s"))
"""Seconds."""
MAX_BACKOFF = float(_RETRY["maxBackoff"].removesuffix("s"))
"""Seconds."""
MULTIPLIER = float(_RETRY["backoffMultiplier"])


def balancing(policy: str) -> str:
    """A service config with nothing but a load-balancing policy, for a channel's option."""
    return json.dumps({"loadBalancingConfig": [{policy: {}}]})
