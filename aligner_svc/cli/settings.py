"""The server's settings and audit log, for the commands that use them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aligner_svc.cli.failures import USAGE, Failure, warn
from aligner_svc.cli.server_options import VARIABLES

if TYPE_CHECKING:
    from aligner_svc.config import Settings
    from aligner_svc.config.report import Loaded, Override
    from aligner_svc.config.security import AuditSettings
    from interceptors.calls.security_event import Record


def load_settings(config: Path | None, overrides: Sequence[Override] = ()) -> Loaded[Settings]:
    """Load the settings, from `config` if given, and warn about unknown ALIGNER_* variables. Raises Failure."""
    use_config(config)
    from aligner_svc.config import Settings
    from aligner_svc.config.report import SettingsProblem, load, unknown_variables

    for unknown in unknown_variables(Settings, VARIABLES):
        warn(str(unknown))
    try:
        return load(Settings, overrides)
    except SettingsProblem as problem:
        raise Failure("the settings are invalid", why="\n       ".join(problem.lines), exit_code=USAGE) from None


def use_config(config: Path | None) -> None:
    """Select the settings file. As a variable and not as an argument, so that worker processes read the same file."""
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)


@contextmanager
def audit_record(settings: AuditSettings) -> Iterator[Record]:
    """Open the audit log before anything is changed. Raises Failure: a change that cannot be recorded is not made."""
    from aligner_svc.telemetry.audit.log import AuditError, open_audit

    try:
        # Without a file to stderr: stdout is for the result, such as a new key.
        audit = open_audit(settings, stream=sys.stderr)
    except AuditError as error:
        raise Failure("nothing was changed", why=str(error)) from None
    try:
        yield audit.record
    finally:
        audit.close()
