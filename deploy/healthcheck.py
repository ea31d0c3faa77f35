"""Exit status 0 if the server in this container takes calls: GET /ready on its metrics port answers 200.

That port has neither TLS nor authentication, so the check is the same for every profile. It imports nothing but the standard
library: 40 ms of CPU time every few seconds, where reading all settings takes 400.
"""

from __future__ import annotations

import http.client
import os
import sys
import tomllib
from pathlib import Path

TIMEOUT = 4.0
"""Seconds."""


def address() -> tuple[str, int]:
    """Where the server's settings place the metrics port; on loopback if that is on every address. Raises OSError, ValueError."""
    listen = os.environ.get("ALIGNER_METRICS__LISTEN")
    if listen is None:
        settings = tomllib.loads(Path(os.environ.get("ALIGNER_CONFIG", "/app/aligner.toml")).read_text(encoding="utf-8"))
        listen = settings.get("metrics", {}).get("listen", "")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("metrics.listen is not set to HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - nothing listens here


def main() -> int:
    try:
        connection = http.client.HTTPConnection(*address(), timeout=TIMEOUT)
        connection.request("GET", "/ready")
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"no answer from the metrics port: {error}", file=sys.stderr)
        return 1
    print(body, end="")  # what is wrong, if something is: `docker inspect` shows it
    return 0 if response.status == http.client.OK else 1


if __name__ == "__main__":
    raise SystemExit(main())
