"""The classes in a file, read again when the file changes."""

from __future__ import annotations

from pathlib import Path

from interceptors.calls.security_event import Record
from interceptors.quota.classes import BUILT_IN, QuotaClasses
from interceptors.quota.classes_text import LONGEST, QuotaError, parse, too_long
from interceptors.rules.file import RulesFile, RulesFormat


def built_in() -> QuotaClasses:
    """What holds where no file is named."""
    return parse(BUILT_IN, "the built-in classes")


class QuotaClassesFile(RulesFile[QuotaClasses]):
    """See RulesFile. What was used stays used."""

    def __init__(self, path: Path, record: Record | None, every: float) -> None:
        """`every`: seconds between looks at the file. Raises QuotaError: a server does not start with bad classes."""
        super().__init__(path, RulesFormat("the file of classes", parse, QuotaError, LONGEST, too_long), record, every)
