"""From settings to the API keys: the store, and the pepper that stored keys are hashed with."""

# ruff: noqa: PLC0415 - whoever has no API keys must not wait for sqlalchemy

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aligner_svc.errors import StartError

if TYPE_CHECKING:
    from aligner_svc.config.security import KeySettings
    from interceptors.auth.api_keys.store import KeyStore

_PEPPER_BYTES = 32
_SHORTEST = 32
"""Characters of a pepper, as KeySettings has it for the one in a variable."""
_LONGEST = 4096


class PepperError(StartError):
    """There is no pepper that can be used. The message tells what to do, and nothing of the pepper."""


class PepperAbsentError(PepperError):
    """There is none, neither in the settings nor in a file."""


def open_store(settings: KeySettings, *, connect_timeout: float | None = None) -> KeyStore:
    """Not connected yet. `connect_timeout` in seconds, else the settings' own. Raises DatabaseUrlError."""
    from interceptors.auth.api_keys.store import KeyStore

    return KeyStore(settings.database.get_secret_value(), timeout=connect_timeout or settings.timeout)


def read_pepper(settings: KeySettings) -> bytes:
    """The pepper of the settings, else of the file without white space around it, as UTF-8. Raises PepperError.

    The text itself is the pepper, in hexadecimal or not: a file's content does the same in ALIGNER_KEYS__PEPPER.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    file = settings.pepper_file.absolute()
    try:
        with file.open("rb") as opened:
            pepper = opened.read(_LONGEST + 1).strip()
    except FileNotFoundError:
        raise PepperAbsentError(
            f"{file} is not there; `aligner keys create` makes it, with the first key. Servers need the same one, "
            "as a file (ALIGNER_KEYS__PEPPER_FILE) or as ALIGNER_KEYS__PEPPER"
        ) from None
    except OSError as error:
        raise PepperError(f"{file} cannot be read: {(error.strerror or 'input/output error').lower()}") from None
    if not _SHORTEST <= len(pepper) <= _LONGEST:
        found = "more" if len(pepper) > _LONGEST else len(pepper)
        raise PepperError(
            f"{file} has to hold {_SHORTEST} to {_LONGEST} characters, and holds {found}; "
            "put back the right one: with another, all keys are invalid"
        )
    return pepper


def make_pepper(settings: KeySettings) -> bytes:
    """A new one in the settings' file, 64 hexadecimal digits, readable by its owner alone; if one is there, that one.

    Raises PepperError. Whoever calls this has made sure that there are no keys yet: with another pepper they would be invalid.
    """
    file = settings.pepper_file.absolute()
    try:
        _write_whole(file, secrets.token_hex(_PEPPER_BYTES).encode() + b"\n")
    except FileExistsError:
        pass  # another command was faster; what it made is the pepper
    except OSError as error:
        raise PepperError(f"{file} cannot be made: {(error.strerror or 'input/output error').lower()}") from None
    return read_pepper(settings)


def open_to_others(file: Path) -> bool:
    """Whether every user of the machine may read or write it. False where that cannot be told."""
    try:
        return bool(file.stat().st_mode & 0o006)
    except OSError:
        return False


def _write_whole(file: Path, content: bytes) -> None:
    """Under its name the file is whole or not there: nobody reads half a pepper. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        os.link(name, file)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
