"""Failures as a person reads them - what, why, what to do - and as a script does: the exit code."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from aligner_svc.client import AlignerClientError
    from aligner_svc.config.report import SettingsProblem
    from aligner_svc.domain import Alignment

FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""What shells report for SIGINT."""
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""


# By the names of client.Handshake, which is behind the import of grpc.
_HANDSHAKE_HINTS = {
    "UNTRUSTED": "give the CA that signed it with --ca FILE",
    "EXPIRED": "whoever runs the server can renew it; is the clock of this machine right?",
    "WRONG_NAME": "name the server as its certificate does, in --target or with --server-name NAME",
    "NOT_TLS": "name the port that speaks TLS, or leave out --tls, --ca, --cert and --key (and their variables)",
    "REFUSED": "does the server want --cert and --key, of a CA that it believes?",
    "HUNG_UP": "if it wants TLS, --tls or --ca FILE; if it wants a certificate, --cert and --key, of a CA that it believes",
}

_TOKEN_HINTS = {
    "invalid_client": "check --oauth-client and its secret, and whether the provider wants --oauth-post",
    "unauthorized_client": "check --oauth-client: the provider does not let it use client credentials",
    "invalid_scope": "check --oauth-scope",
    "invalid_target": "check --oauth-resource and --oauth-audience",
}

# Of a reason that the server gives; whoever is told another one, or none, has shown nothing.
_WHO_HINTS = {
    "TOKEN_EXPIRED": "get another token, or give --oauth-url, which renews its own",
    "CREDENTIALS_AMBIGUOUS": "show one thing: a token or a key, and not both",
    "CREDENTIALS_INVALID": "is it a token, key or certificate for this server, whole, and not revoked?",
}


class Failure(Exception):  # noqa: N818 - an outcome, shown and turned into an exit code
    """A failure to tell the person about. `what` failed, `why`, and a `hint` at what to do."""

    def __init__(self, what: str, *, why: str = "", hint: str = "", exit_code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.exit_code = exit_code


@contextmanager
def reported() -> Iterator[None]:
    """Around a command: a Failure or an OSError becomes a message on stderr and an exit code."""
    try:
        yield
    except Failure as failure:
        _show(failure)
        raise typer.Exit(failure.exit_code) from None
    except BrokenPipeError:
        # The reader of our stdout left, as `head` does: nobody to tell, typer exits quietly.
        raise
    except OSError as error:
        _show(Failure(str(error.filename or "input/output"), why=error.strerror or str(error)))
        raise typer.Exit(FAILED) from None


def from_client(error: AlignerClientError, what: str, target: str) -> Failure:
    """The failure for what a call raised."""
    from aligner_svc.client import TokenError, UnavailableError, failed_handshake

    if isinstance(error, TokenError) and error.retryable:
        return Failure(what, why=str(error), hint=_hint(error), exit_code=UNAVAILABLE)
    if isinstance(error, UnavailableError):
        handshake = failed_handshake(error)
        if handshake is not None:
            return Failure(what, why=f"{target}: {handshake.value}", hint=_HANDSHAKE_HINTS[handshake.name], exit_code=UNAVAILABLE)
        # grpc's own message lists resolved addresses and errno; keep it for a reason that says nothing.
        why = f"no answer from {target}" if error.reason == "UNAVAILABLE" else str(error)
        return Failure(what, why=why, hint=_hint(error), exit_code=UNAVAILABLE)
    why = str(error)
    for violation in error.violations:
        if violation.description != error.message:
            why += f"\n       {violation.field}: {violation.description}"
    return Failure(what, why=why, hint=_hint(error))


def from_settings(problem: SettingsProblem) -> Failure:
    """The failure for settings that cannot be used."""
    return Failure("the settings cannot be used", why="\n       ".join(problem.lines), exit_code=USAGE)


def _hint(error: AlignerClientError) -> str:
    from aligner_svc import client

    if isinstance(error, client.ResourceExhaustedError) and error.retry_after is not None:
        return f"try again in {error.retry_after:.0f} s"
    if isinstance(error, client.TokenError):
        if error.retryable:
            return "is the provider of --oauth-url up, and the URL right?"
        return _TOKEN_HINTS.get(error.error, "check --oauth-url, and what the provider knows of this client")
    if isinstance(error, client.UnauthenticatedError):
        return _WHO_HINTS.get(error.reason, "say who calls: --token, --api-key or --oauth-url, or --cert and --key")
    hints: dict[type[AlignerClientError], str] = {
        client.UnavailableError: "start one with `aligner serve --profile dev`, or name a running one with --target HOST:PORT",
        client.DeadlineExceededError: "allow more time with --timeout SECONDS",
        client.ResourceExhaustedError: "`aligner info` shows what the server takes",
        client.PermissionDeniedError: "whoever runs the server can grant what this call needs",
        client.FailedPreconditionError: "`aligner info` shows what the server serves",
        client.UnimplementedError: "is this an aligner server, and as new as this client?",
    }
    return hints.get(type(error), "")


def _show(failure: Failure) -> None:
    label = typer.style("error:", fg="red", bold=True)
    lines = [f"{label} {failure.what}"]
    if failure.why:
        lines.append(f"  why: {failure.why}")
    if failure.hint:
        lines.append(f"  try: {failure.hint}")
    # echo drops the colour where stderr is no terminal.
    typer.echo("\n".join(lines), err=True)


def warn(message: str) -> None:
    """One yellow line on stderr."""
    typer.echo(f"{typer.style('warning:', fg='yellow')} {message}", err=True)


def warn_of(alignment: Alignment) -> None:
    """The answer's warnings on stderr, for output that has no place for them."""
    from aligner_svc.cli.alignment.table import printable

    for warning in alignment.warnings:
        warn(printable(f"{warning.message} ({warning.code})").plain)
