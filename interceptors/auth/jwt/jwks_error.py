"""Why an issuer's keys cannot be fetched. A module of its own, because the modules that fetch them are slow to import."""

from __future__ import annotations


class JwksError(Exception):
    """An issuer's keys are unavailable; the message is for the log and for the operator who starts the server.

    `check` is the reason, one of: unreachable, timeout, http_status, too_large, malformed, issuer_mismatch,
    url_not_allowed, unreadable (a file), unexpected (a bug: its traceback is in the log).
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
