"""Secrets of a command: read from a file, a variable or stdin, never given as an argument, never shown.

Every user of a machine can read arguments with `ps`, and shells keep them in their history.
"""

from __future__ import annotations

import errno
import getpass
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import typer

from aligner_svc.cli.failures import warn

PREFIX = "ALIGNER_CLIENT_"

TOKEN = PREFIX + "TOKEN"
API_KEY = PREFIX + "API_KEY"
OAUTH_SECRET = PREFIX + "OAUTH_SECRET"
"""Variables that hold a secret; with _FILE appended, variables that hold the path of a file with it."""
SECRET_VARIABLES = frozenset(name + suffix for name in (TOKEN, API_KEY, OAUTH_SECRET) for suffix in ("", "_FILE"))

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, stripped of surrounding white space. `current` returns its present value."""

    current: Callable[[], str] = field(repr=False)
    may_change: bool
    """Whether `current` reads a file, which may be replaced."""


def find_secret(option: str, reference: str | None, variable: str, *, stdin_taken: bool) -> Secret | None:
    """Find the secret that `reference` names (@FILE, env:NAME or -); without a reference, that of `variable`.

    `stdin_taken`: stdin is the audio. Returns None if there is neither reference nor variable. Raises typer.BadParameter
    with a message that never contains the secret.
    """
    if reference is None:
        value, path = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
        if value and path:
            raise typer.BadParameter("only one of them may be given", param_hint=f"{variable}, {variable}_FILE")
        if path:
            return _from_file(Path(path), f"{variable}_FILE")
        return _fixed(value, variable) if value else None
    if reference == "-":
        if stdin_taken:
            raise typer.BadParameter("stdin is already used for the audio", param_hint=option)
        return _fixed(_read_stdin(option), option)
    if reference.startswith("@") and len(reference) > 1:
        return _from_file(Path(reference[1:]), option)
    if reference.startswith("env:"):
        name = reference[4:]
        if name not in os.environ:
            raise typer.BadParameter(f"the variable {name} is not set" if name.isidentifier() else "env:NAME", param_hint=option)
        return _fixed(os.environ[name], option)
    raise typer.BadParameter(
        "do not give the secret itself: every user of this machine can read it with `ps`, and the shell keeps it in its "
        f"history. Give @FILE, env:NAME or - (stdin), or set {variable}. If this was a secret, replace it.",
        param_hint=option,
    )


def is_set(variable: str) -> bool:
    """Whether the variable, or the one that names a file in its place, holds anything."""
    return bool(os.environ.get(variable) or os.environ.get(f"{variable}_FILE"))


def warn_if_open_to_others(path: Path) -> None:
    """Warn about a file with a secret that other users can read or write."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        warn(f"{path} can be read or written by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")


def _fixed(value: str, origin: str) -> Secret:
    secret = value.strip()
    if not secret:
        raise typer.BadParameter("it is empty", param_hint=origin)
    return Secret(lambda: secret, may_change=False)


def _from_file(path: Path, origin: str) -> Secret:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        value = _read_file(path)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=origin) from None
    if not regular:
        return _fixed(value, origin)  # a pipe, e.g. of the shell's <(...), can be read only once
    warn_if_open_to_others(path)
    return Secret(lambda: _read_file(path), may_change=True)


def _read_file(path: Path) -> str:
    """Read a secret without surrounding white space. Raises OSError, also for a file with no secret or with several."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, "too long for a secret", str(path))
    # What is not UTF-8 is refused later, by the check of what a header may carry.
    secret = data.decode(errors="replace").strip()
    if not secret or any(char.isspace() for char in secret):
        raise OSError(errno.EINVAL, "does not hold exactly one secret", str(path))
    return secret


def _read_stdin(option: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{option.removeprefix('--')} (not shown): ")
    return sys.stdin.readline(_MAX_BYTES)
