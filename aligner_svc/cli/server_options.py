"""The options of every command that calls a server, and the connection they describe."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligner_svc.cli.credentials import (
    API_KEY,
    OAUTH_SECRET,
    PREFIX,
    SECRET_VARIABLES,
    TOKEN,
    find_secret,
    is_set,
    warn_if_open_to_others,
)
from aligner_svc.cli.failures import USAGE, Failure, reported, warn

if TYPE_CHECKING:
    from aligner_client import Aligner, AsyncAligner, Auth, ClientCredentials, Tls

# Equals client.channel.DEFAULT_TARGET, which is not imported here because it imports grpc.
DEFAULT_TARGET = "127.0.0.1:50051"

# What Kubernetes sets in every pod for a Service named "aligner-client".
_KUBERNETES = re.compile(r"ALIGNER_CLIENT_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the server and how to authenticate. `target` is HOST:PORT."""

    target: str
    tls: Tls | None = None
    auth: Auth | None = field(default=None, repr=False)

    def open(self) -> Aligner:
        """Open the blocking client. Raises Failure, OSError."""
        from aligner_client import Aligner

        with _usable("--tls, or --ca FILE if the server's CA is not a public one" if self.tls is None else ""):
            return Aligner(self.target, tls=self.tls, auth=self.auth)

    def open_async(self) -> AsyncAligner:
        """Open the asyncio client. Raises Failure, OSError."""
        from aligner_client import AsyncAligner

        with _usable("--tls, or --ca FILE if the server's CA is not a public one" if self.tls is None else ""):
            return AsyncAligner(self.target, tls=self.tls, auth=self.auth)


def _option(metavar: str | None, variable: str | None, text: str, *names: str, **more: Any) -> Any:
    variable = variable and PREFIX + variable
    return typer.Option(*names, metavar=metavar, help=text, envvar=variable, rich_help_panel="Server and credentials", **more)


def _file(variable: str, text: str) -> Any:
    return _option("FILE", variable, text, exists=True, dir_okay=False)


def _secret(variable: str, what: str) -> Any:
    text = f"{what}, from a file, a variable or stdin (-); never the secret itself."
    return _option("@FILE|env:NAME|-", None, f"{text} Default: {variable}, or the file named by {variable}_FILE.")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach the server and how to authenticate, as given on the command line and in variables."""

    target: Annotated[str, _option("HOST:PORT", "TARGET", "Address of the server.")] = DEFAULT_TARGET
    tls: Annotated[bool, _option(None, "TLS", "Use TLS. Implied by the next four options.", "--tls")] = False
    ca: Annotated[Path | None, _file("CA", "CA certificates (PEM) to verify the server with. Default: the public CAs.")] = None
    cert: Annotated[Path | None, _file("CERT", "Client certificate (PEM) to authenticate with (mTLS). Needs --key.")] = None
    key: Annotated[Path | None, _file("KEY", "Private key (PEM) of the client certificate.")] = None
    server_name: Annotated[
        str | None, _option("NAME", "SERVER_NAME", "Name in the server's certificate. Default: the host of --target.")
    ] = None
    # Hidden from repr: a user may have given a secret itself instead of a reference.
    token: Annotated[str | None, _secret(TOKEN, "Bearer token")] = field(default=None, repr=False)
    api_key: Annotated[str | None, _secret(API_KEY, "API key")] = field(default=None, repr=False)
    oauth_url: Annotated[
        str | None, _option("URL", "OAUTH_URL", "Token endpoint to get tokens from, with OAuth 2 client credentials.")
    ] = field(default=None, repr=False)
    oauth_client: Annotated[str | None, _option("ID", "OAUTH_CLIENT", "Client id at the token endpoint.")] = None
    oauth_secret: Annotated[str | None, _secret(OAUTH_SECRET, "Client secret")] = field(default=None, repr=False)
    oauth_scope: Annotated[str | None, _option("SCOPES", "OAUTH_SCOPE", "Scopes to request, separated by spaces.")] = None
    oauth_audience: Annotated[str | None, _option("NAME", "OAUTH_AUDIENCE", "Audience to request.")] = None
    oauth_resource: Annotated[str | None, _option("URI", "OAUTH_RESOURCE", "Resource to request (RFC 8707).")] = None
    oauth_ca: Annotated[
        Path | None, _file("OAUTH_CA", "CA certificates (PEM) to verify the token endpoint with. Default: the public CAs.")
    ] = None
    oauth_post: Annotated[
        bool, _option(None, "OAUTH_POST", "Send the client secret in the request body, not in a header.", "--oauth-post")
    ] = False
    target_given: bool = False
    """Whether the target was given on the command line or in its variable."""
    oauth_on_command_line: bool = False
    """Whether an --oauth option was given on the command line."""

    def connection(self, *, stdin_taken: bool = False) -> Connection:
        """Read the secrets and build the connection. `stdin_taken`: stdin is the audio. Exits on options that do not fit."""
        with reported(), _usable():
            _warn_of_unknown_variables()
            from aligner_client import Tls

            tls = None
            if self.tls or self.ca or self.cert or self.key or self.server_name:
                if (self.cert is None) != (self.key is None):
                    raise typer.BadParameter("give both or none", param_hint="--cert, --key")
                if self.key is not None:
                    warn_if_open_to_others(self.key)
                tls = Tls(self.ca, self.cert, self.key, self.server_name)
            return Connection(self.target, tls, self._auth(stdin_taken))

    def _auth(self, stdin_taken: bool) -> Auth | None:
        """The credential of the command line; only without one that of the variables."""
        from aligner_client import ApiKey, BearerToken

        chosen = _only_one({
            "--token": self.token is not None,
            "--api-key": self.api_key is not None,
            "--oauth-url": self.oauth_on_command_line,
        }) or _only_one({
            TOKEN: is_set(TOKEN),
            API_KEY: is_set(API_KEY),
            f"{PREFIX}OAUTH_URL": self.oauth_url is not None,
        })  # fmt: skip
        if chosen in {"--token", TOKEN}:
            token = find_secret("--token", self.token, TOKEN, stdin_taken=stdin_taken)
            assert token is not None
            fixed = BearerToken(token.current())  # checked now and not in the middle of a thousand files
            return BearerToken(token.current) if token.may_change else fixed
        if chosen in {"--api-key", API_KEY}:
            key = find_secret("--api-key", self.api_key, API_KEY, stdin_taken=stdin_taken)
            assert key is not None
            return ApiKey(key.current())
        return None if chosen is None else self._oauth(stdin_taken)

    def _oauth(self, stdin_taken: bool) -> ClientCredentials:
        from aligner_client import ClientCredentials

        secret = find_secret("--oauth-secret", self.oauth_secret, OAUTH_SECRET, stdin_taken=stdin_taken)
        return ClientCredentials(
            _needed(self.oauth_url, "--oauth-url"),
            _needed(self.oauth_client, "--oauth-client"),
            _needed(secret.current() if secret else None, f"--oauth-secret, {OAUTH_SECRET}"),
            scope=self.oauth_scope or (),
            audience=self.oauth_audience,
            resource=self.oauth_resource or (),
            method="client_secret_post" if self.oauth_post else "client_secret_basic",
            ca=self.oauth_ca,
        )


_OPTIONS = [
    one for one in inspect.signature(ServerOptions, eval_str=True).parameters.values() if hasattr(one.annotation, "__metadata__")
]

VARIABLES = SECRET_VARIABLES | {one.annotation.__metadata__[0].envvar for one in _OPTIONS} - {None}
"""All variables that the client's commands read."""


def with_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `server: ServerOptions` the options above in place of that parameter."""

    def run(ctx: typer.Context, **values: Any) -> None:
        sources = {one.name: getattr(ctx.get_parameter_source(one.name), "name", "") for one in _OPTIONS}
        server = ServerOptions(
            **{name: values.pop(name) for name in sources},
            target_given=sources["target"] in {"COMMANDLINE", "ENVIRONMENT"},
            oauth_on_command_line=any(source == "COMMANDLINE" for name, source in sources.items() if name.startswith("oauth_")),
        )
        command(server=server, **values)

    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "server"]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in _OPTIONS]
    run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, {}
    run.__signature__ = inspect.Signature([context, *own, *options])  # type: ignore[attr-defined]
    return run


@contextmanager
def _usable(hint: str = "") -> Iterator[None]:
    """Turn the client's CredentialsError into a Failure."""
    from aligner_client import CredentialsError

    try:
        yield
    except CredentialsError as error:
        raise Failure("the credentials cannot be used", why=str(error), hint=hint, exit_code=USAGE) from None


def _needed(value: str | None, option: str) -> str:
    if not value:
        raise typer.BadParameter("needed for OAuth client credentials", param_hint=option)
    return value


def _only_one(given: dict[str, bool]) -> str | None:
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise typer.BadParameter("only one of them may be given", param_hint=", ".join(names))
    return names[0] if names else None


def _warn_of_unknown_variables() -> None:
    """A misspelt variable would be ignored silently, and the call fail because it has no credential."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in VARIABLES and not _KUBERNETES.fullmatch(name):
            nearest = next(iter(difflib.get_close_matches(name, sorted(VARIABLES), n=1, cutoff=0.7)), None)
            warn(f"{name} sets nothing" + (f"; did you mean {nearest}?" if nearest else ""))
