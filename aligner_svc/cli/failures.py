"""Failures of a command: what failed, why and what to try, on stderr, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from aligner_client import AlignerClientError

FAILED = 1
USAGE = 2
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""
INTERRUPTED = 130
"""What shells report for SIGINT."""

# By the names of client.Handshake, which is not imported here because it imports grpc.
HANDSHAKE_HINTS = {
    "UNTRUSTED": "give the CA that signed it with --ca FILE",
    "EXPIRED": "ask the server's operator to renew it, or set the clock of this machine",
    "WRONG_NAME": "use the name in the server's certificate, in --target or with --server-name NAME",
    "NOT_TLS": "use the server's TLS port, or leave out --tls, --ca, --cert and --key (and their variables)",
    "TLS_REQUIRED": "give --tls, or --ca FILE if the server's CA is not a public one",
    "CERTIFICATE_MISSING": "give --cert and --key, signed by a CA that the server trusts",
    "CERTIFICATE_REFUSED": "give a --cert that a CA of the server's has signed and that has not expired",
    "REFUSED": "ask the server's operator for the TLS versions and certificates that it accepts",
    "HUNG_UP": "if the server requires TLS, give --tls or --ca FILE; if it requires a client certificate, --cert and --key",
}

_TOKEN_HINTS = {
    "invalid_client": "check --oauth-client and its secret, and whether the provider requires --oauth-post",
    "unauthorized_client": "check --oauth-client: the provider does not allow it the client credentials grant",
    "invalid_scope": "check --oauth-scope",
    "invalid_target": "check --oauth-resource and --oauth-audience",
}

# By the reason that the server gives. Any other reason, or none, means that no credential was sent.
_CREDENTIAL_HINTS = {
    "TOKEN_EXPIRED": "get a new token, or give --oauth-url to have tokens renewed",
    "CREDENTIALS_AMBIGUOUS": "send either a token or an API key, not both",
    "CREDENTIALS_INVALID": "check that the token, key or certificate is for this server, complete and not revoked",
}


class Failure(Exception):  # noqa: N818 - an expected outcome, reported and turned into an exit code
    """An expected failure: `what` failed, `why`, a `hint` at what to try, and the exit code."""

    def __init__(self, what: str, *, why: str = "", hint: str = "", exit_code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.exit_code = exit_code


@contextmanager
def reported() -> Iterator[None]:
    """Report a Failure or an OSError on stderr and exit with its code."""
    try:
        yield
    except Failure as failure:
        _show(failure)
        raise typer.Exit(failure.exit_code) from None
    except BrokenPipeError:
        raise  # the reader of stdout is gone, as with `| head`: typer exits quietly
    except OSError as error:
        _show(Failure(str(error.filename or "input/output"), why=error.strerror or str(error)))
        raise typer.Exit(FAILED) from None


def from_client(error: AlignerClientError, what: str, target: str) -> Failure:
    """The failure to report for an error of the client."""
    from aligner_client import TokenError, UnavailableError, failed_handshake

    why, hint, exit_code = str(error), _hint(error), FAILED
    if isinstance(error, UnavailableError):
        exit_code = UNAVAILABLE
        handshake = failed_handshake(error)
        if handshake is not None:
            why, hint = f"{target}: {handshake.value}", HANDSHAKE_HINTS[handshake.name]
        elif error.reason == "UNAVAILABLE":  # grpc's own message is a list of addresses and errno
            why = f"no answer from {target}"
    elif isinstance(error, TokenError) and error.retryable:
        exit_code = UNAVAILABLE
    else:
        for violation in error.violations:
            if violation.description != error.message:
                why += f"\n       {violation.field}: {violation.description}"
    return Failure(what, why=why, hint=hint, exit_code=exit_code)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint at the valid name that resembles `name`, else at all valid names."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"


def warn(message: str) -> None:
    """Print one yellow line to stderr."""
    typer.echo(f"{typer.style('warning:', fg='yellow')} {message}", err=True)


def _hint(error: AlignerClientError) -> str:
    from aligner_svc import client

    if isinstance(error, client.ResourceExhaustedError) and error.retry_after is not None:
        return f"try again in {error.retry_after:.0f} s"
    if isinstance(error, client.TokenError):
        if error.retryable:
            return "check that the provider of --oauth-url is up and that the URL is right"
        return _TOKEN_HINTS.get(error.error, "check --oauth-url, and the settings of this client at the provider")
    if isinstance(error, client.UnauthenticatedError):
        return _CREDENTIAL_HINTS.get(error.reason, "authenticate with --token, --api-key or --oauth-url, or --cert and --key")
    hints: dict[type[AlignerClientError], str] = {
        client.UnavailableError: "start a server with `aligner serve --profile dev`, or give --target HOST:PORT of a running one",
        client.DeadlineExceededError: "allow more time with --timeout SECONDS",
        client.ResourceExhaustedError: "`aligner info` shows what the server accepts",
        client.PermissionDeniedError: "ask the server's operator for the permission to make this call",
        client.FailedPreconditionError: "`aligner info` shows what the server serves",
        client.UnimplementedError: "check that this is an aligner server, no older than this client",
    }
    return hints.get(type(error), "")


def _show(failure: Failure) -> None:
    lines = [f"{typer.style('error:', fg='red', bold=True)} {failure.what}"]
    if failure.why:
        lines.append(f"  why: {failure.why}")
    if failure.hint:
        lines.append(f"  try: {failure.hint}")
    typer.echo("\n".join(lines), err=True)  # echo drops the colour unless stderr is a terminal
