"""Where a command's secrets come from, and the connection made with them.

A secret is never an argument: those are shown by `ps` to everybody and kept by the shell. It comes from a file, a
variable or stdin, and from none of them to the screen.
"""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import difflib
import errno
import getpass
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aligner_svc.cli.failures import USAGE, Failure, reported, warn

if TYPE_CHECKING:
    from aligner_svc.client import Aligner, AsyncAligner, Auth, ClientCredentials, Tls

PREFIX = "ALIGNER_CLIENT_"

TOKEN = PREFIX + "TOKEN"
API_KEY = PREFIX + "API_KEY"
OAUTH_SECRET = PREFIX + "OAUTH_SECRET"
"""Variables that hold a secret; with _FILE behind the name, the path of a file that does."""

VARIABLES = frozenset(
    PREFIX + name
    for name in (
        *("TARGET", "TLS", "CA", "CERT", "KEY", "SERVER_NAME"),
        *("TOKEN", "TOKEN_FILE", "API_KEY", "API_KEY_FILE", "OAUTH_SECRET", "OAUTH_SECRET_FILE"),
        *("OAUTH_URL", "OAUTH_CLIENT", "OAUTH_SCOPE", "OAUTH_AUDIENCE", "OAUTH_RESOURCE", "OAUTH_CA", "OAUTH_POST"),
    )
)
"""All that the client's commands read."""

# What Kubernetes sets in every pod for a Service that is named "aligner-client".
_KUBERNETES = re.compile(r"ALIGNER_CLIENT_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that was found. `current` gives it as it is now, without the blanks around it."""

    current: Callable[[], str] = field(repr=False)
    changes: bool
    """It is a file, in which another may lie tomorrow."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How the server is reached and who calls. `target` is for messages too."""

    target: str
    tls: Tls | None = None
    auth: Auth | None = field(default=None, repr=False)

    def open(self) -> Aligner:
        """The blocking client. Raises Failure, OSError."""
        from aligner_svc.client import Aligner, CredentialsError

        try:
            return Aligner(self.target, tls=self.tls, auth=self.auth)
        except CredentialsError as error:
            raise self._failure(error) from None

    def open_async(self) -> AsyncAligner:
        """The asyncio client. Raises Failure, OSError."""
        from aligner_svc.client import AsyncAligner, CredentialsError

        try:
            return AsyncAligner(self.target, tls=self.tls, auth=self.auth)
        except CredentialsError as error:
            raise self._failure(error) from None

    def _failure(self, error: ValueError) -> Failure:
        hint = "--tls, or --ca FILE where the server's CA is not a public one" if self.tls is None else ""
        return _unusable(error, hint)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server is reached and who calls, as the command line and the variables say it."""

    target: str
    tls: bool
    ca: Path | None
    cert: Path | None
    key: Path | None
    server_name: str | None
    # Not shown: somebody may have given the secret itself.
    token: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    oauth_url: str | None = field(repr=False)
    oauth_client: str | None
    oauth_secret: str | None = field(repr=False)
    oauth_scope: str | None
    oauth_audience: str | None
    oauth_resource: str | None
    oauth_ca: Path | None
    oauth_post: bool
    oauth_flags: bool
    """One of the --oauth options is on the command line."""

    def connection(self, *, stdin_taken: bool = False) -> Connection:
        """What they come to; `stdin_taken` where stdin brings the audio. Ends the command where they do not fit together."""
        with reported():
            return resolve(self, stdin_taken=stdin_taken)


def resolve(options: ServerOptions, *, stdin_taken: bool) -> Connection:
    """The connection for what was asked for; `stdin_taken`: it brings the audio. Raises typer.BadParameter, Failure, OSError."""
    _warn_of_misspelt()
    from aligner_svc.client import CredentialsError, Tls

    try:
        tls = None
        if options.tls or options.ca or options.cert or options.key or options.server_name:
            if (options.cert is None) != (options.key is None):
                raise typer.BadParameter("needed together", param_hint="--cert, --key")
            if options.key is not None:
                _warn_of_readers(options.key)
            tls = Tls(options.ca, options.cert, options.key, options.server_name)
        return Connection(options.target, tls, _auth(options, stdin_taken=stdin_taken))
    except CredentialsError as error:
        raise _unusable(error) from None


def find_secret(option: str, reference: str | None, variable: str, *, stdin_taken: bool) -> Secret | None:
    """The secret `reference` names (@FILE, env:NAME or -), else that of `variable`, or of the file its _FILE names.

    None where there is none of them. Raises typer.BadParameter, which never holds what was found.
    """
    if reference is None:
        value, path = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
        if value and path:
            raise typer.BadParameter("give one of them", param_hint=f"{variable}, {variable}_FILE")
        if path:
            return _from_file(Path(path), f"{variable}_FILE")
        return _fixed(value, variable) if value else None
    if reference == "-":
        if stdin_taken:
            raise typer.BadParameter("stdin brings the audio already", param_hint=option)
        return _fixed(_read_stdin(option), option)
    if reference.startswith("@") and len(reference) > 1:
        return _from_file(Path(reference[1:]), option)
    if reference.startswith("env:"):
        name = reference[4:]
        if name not in os.environ:
            raise typer.BadParameter(f"the variable {name} is not set" if name.isidentifier() else "env:NAME", param_hint=option)
        return _fixed(os.environ[name], option)
    raise typer.BadParameter(
        "never the secret itself: everybody on this machine can read it in `ps`, and the shell keeps it in its history. "
        f"Give @FILE, env:NAME or - (stdin), or set {variable}. If that was a secret, have it replaced.",
        param_hint=option,
    )


def _auth(options: ServerOptions, *, stdin_taken: bool) -> Auth | None:
    """What the command line says, and only if that says nothing what the variables do."""
    from aligner_svc.client import ApiKey, BearerToken

    named = _exactly_one({
        "--token": options.token is not None,
        "--api-key": options.api_key is not None,
        "--oauth-url": options.oauth_flags,
    }) or _exactly_one({
        TOKEN: _is_set(TOKEN),
        API_KEY: _is_set(API_KEY),
        "ALIGNER_CLIENT_OAUTH_URL": options.oauth_url is not None,
    })  # fmt: skip
    if named in {"--token", TOKEN}:
        token = find_secret("--token", options.token, TOKEN, stdin_taken=stdin_taken)
        assert token is not None
        BearerToken(token.current())  # now, and not in the middle of a thousand files
        return BearerToken(token.current if token.changes else token.current())
    if named in {"--api-key", API_KEY}:
        key = find_secret("--api-key", options.api_key, API_KEY, stdin_taken=stdin_taken)
        assert key is not None
        return ApiKey(key.current())
    return None if named is None else _oauth(options, stdin_taken=stdin_taken)


def _oauth(options: ServerOptions, *, stdin_taken: bool) -> ClientCredentials:
    from aligner_svc.client import ClientCredentials

    secret = find_secret("--oauth-secret", options.oauth_secret, OAUTH_SECRET, stdin_taken=stdin_taken)
    for option, value in {
        "--oauth-url": options.oauth_url,
        "--oauth-client": options.oauth_client,
        f"--oauth-secret, {OAUTH_SECRET}": secret,
    }.items():
        if not value:
            raise typer.BadParameter("needed for OAuth client credentials", param_hint=option)
    assert options.oauth_url is not None
    assert options.oauth_client is not None
    assert secret is not None
    return ClientCredentials(
        options.oauth_url,
        options.oauth_client,
        secret.current(),
        scope=options.oauth_scope or (),
        audience=options.oauth_audience,
        resource=options.oauth_resource or (),
        method="client_secret_post" if options.oauth_post else "client_secret_basic",
        ca=options.oauth_ca,
    )


def _exactly_one(given: dict[str, bool]) -> str | None:
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise typer.BadParameter("give one of them", param_hint=", ".join(names))
    return names[0] if names else None


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable) or os.environ.get(f"{variable}_FILE"))


def _fixed(value: str, origin: str) -> Secret:
    secret = value.strip()
    if not secret:
        raise typer.BadParameter("there is nothing in it", param_hint=origin)
    return Secret(lambda: secret, changes=False)


def _from_file(path: Path, origin: str) -> Secret:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        value = _read_file(path)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=origin) from None
    if not regular:
        return _fixed(value, origin)  # a pipe, as of the shell's <(...), can be read but once
    _warn_of_readers(path)
    return Secret(lambda: _read_file(path), changes=True)


def _read_file(path: Path) -> str:
    """What a file holds, without the blanks around it. Raises OSError, of an empty one too."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, "too long for a secret", str(path))
    # What is not UTF-8 fails where a secret is checked for what a header can carry.
    secret = data.decode(errors="replace").strip()
    if not secret or any(char.isspace() for char in secret):
        raise OSError(errno.EINVAL, "does not hold one secret and nothing else", str(path))
    return secret


def _read_stdin(option: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{option.removeprefix('--')} (not shown): ")
    return sys.stdin.readline(_MAX_BYTES)


def _unusable(error: ValueError, hint: str = "") -> Failure:
    return Failure("the credentials cannot be used", why=str(error), hint=hint, exit_code=USAGE)


def _warn_of_readers(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        warn(f"{path} can be read or written by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")


def _warn_of_misspelt() -> None:
    """A variable that is misspelt would be silence, and then a server that does not know who calls."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in VARIABLES and not _KUBERNETES.fullmatch(name):
            nearest = next(iter(difflib.get_close_matches(name, sorted(VARIABLES), n=1, cutoff=0.7)), None)
            warn(f"{name} sets nothing" + (f"; did you mean {nearest}?" if nearest else ""))
