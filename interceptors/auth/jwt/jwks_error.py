"""Why an issuer's keys cannot be had; apart, as what fetches them is heavy to import."""

from __future__ import annotations


class JwksError(Exception):
    """Keys cannot be had. `detail` is for the log and for whoever starts the server.

    `check` is why, of a fixed set: unreachable, timeout, http_status, too_large, malformed, issuer_mismatch,
    url_not_allowed, unreadable (a file), unexpected (a bug: its traceback is in the log).
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
