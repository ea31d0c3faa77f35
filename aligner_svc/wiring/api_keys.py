"""Builds the store of API keys from settings, and reads or makes the pepper that stored keys are hashed with."""

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

_MIN_LENGTH, _MAX_LENGTH = 32, 4096
"""Characters of a pepper file; the minimum is that of KeySettings.pepper."""


class PepperError(StartError):
    """The pepper cannot be used. The message says what to do and contains nothing of the pepper."""


class PepperAbsentError(PepperError):
    """There is no pepper, neither in the settings nor in a file."""


def open_store(settings: KeySettings, *, connect_timeout: float | None = None) -> KeyStore:
    """Make a store, not connected yet. `connect_timeout` in seconds; None: as in the settings. Raises DatabaseUrlError."""
    from interceptors.auth.api_keys.store import KeyStore  # noqa: PLC0415 - servers without API keys do not need sqlalchemy

    return KeyStore(settings.database.get_secret_value(), timeout=connect_timeout or settings.timeout)


def read_pepper(settings: KeySettings) -> bytes:
    """The pepper of the settings, else that of the file without white space around it, as UTF-8. Raises PepperError.

    The text itself is the pepper and is not decoded: a file's content may also be the value of ALIGNER_KEYS__PEPPER.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    file = settings.pepper_file.absolute()
    try:
        with file.open("rb") as opened:
            pepper = opened.read(_MAX_LENGTH + 1).strip()
    except FileNotFoundError:
        raise PepperAbsentError(
            f"{file} does not exist; `aligner keys create` makes it with the first key. Servers need the same pepper, "
            "as a file (ALIGNER_KEYS__PEPPER_FILE) or in ALIGNER_KEYS__PEPPER"
        ) from None
    except OSError as error:
        raise PepperError(f"{file} cannot be read: {(error.strerror or 'input/output error').lower()}") from None
    if not _MIN_LENGTH <= len(pepper) <= _MAX_LENGTH:
        found = "more" if len(pepper) > _MAX_LENGTH else len(pepper)
        raise PepperError(
            f"{file} must contain {_MIN_LENGTH} to {_MAX_LENGTH} characters and contains {found}; "
            "put the original file back: with another pepper all keys are invalid"
        )
    return pepper


def make_pepper(settings: KeySettings) -> bytes:
    """Make the settings' pepper file, 64 hexadecimal digits, readable by its owner only, unless it exists; return the pepper.

    Raises PepperError. Call it only while there are no keys: with another pepper they would be invalid.
    """
    file = settings.pepper_file.absolute()
    try:
        _write_atomically(file, secrets.token_hex(32).encode() + b"\n")
    except FileExistsError:
        pass  # another command was faster: the pepper is the one it made
    except OSError as error:
        raise PepperError(f"{file} cannot be made: {(error.strerror or 'input/output error').lower()}") from None
    return read_pepper(settings)


def open_to_others(file: Path) -> bool:
    """Whether every user of the machine may read or write the file. False if its mode cannot be read."""
    try:
        return bool(file.stat().st_mode & 0o006)
    except OSError:
        return False


def _write_atomically(file: Path, content: bytes) -> None:
    """The file appears complete or not at all, so that half a pepper is never read. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        os.link(name, file)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
