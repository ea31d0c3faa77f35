"""The policy in a file, read again when the file changes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from interceptors.auth.policy import SCOPES, Policy
from interceptors.calls.security_event import Record
from interceptors.rules.file import RulesFile, RulesFormat
from interceptors.rules.toml_text import LONGEST, PolicyError, too_long


class PolicyFile(RulesFile[Policy]):
    """See RulesFile."""

    def __init__(
        self, path: Path, served: Collection[str], record: Record, every: float, *, scopes: Collection[str] = SCOPES
    ) -> None:
        """`every`: seconds between looks at the file. Raises PolicyError: a server does not start with a bad policy."""

        def parse(text: str, source: str) -> Policy:
            return Policy.parse(text, source, served, scopes=scopes)

        super().__init__(path, RulesFormat("the policy's file", parse, PolicyError, LONGEST, too_long), record, every)
