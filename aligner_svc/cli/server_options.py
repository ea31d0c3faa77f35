"""The options of every command that calls a server: where it is and what proves who calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from aligner_svc.cli.credentials import PREFIX, ServerOptions

# Same as client.channel.DEFAULT_TARGET, which is behind the import of grpc.
DEFAULT_TARGET = "127.0.0.1:50051"


def with_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command its parameter `server: ServerOptions`, and the command line the options behind it."""

    def run(ctx: typer.Context, **values: Any) -> None:
        oauth = [name for name in _SERVER_OPTIONS if name.startswith("oauth_")]
        given = any(getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE" for name in oauth)
        server = ServerOptions(**{name: values.pop(name) for name in _SERVER_OPTIONS}, oauth_flags=given)
        command(server=server, **values)

    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "server"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SERVER_OPTIONS.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, {}
    run.__signature__ = inspect.Signature([context, *own, *options])  # type: ignore[attr-defined]
    return run


def _option(kind: Any, metavar: str | None, text: str, variable: str | None, *names: str, **more: Any) -> Any:
    variable = variable and PREFIX + variable
    info = typer.Option(*names, metavar=metavar, help=text, envvar=variable, rich_help_panel=_PANEL, **more)
    return Annotated[kind, info]


_PANEL = "Server and credentials"


_WHERE = "@FILE|env:NAME|-"


_FILE = {"exists": True, "dir_okay": False}


_SERVER_OPTIONS: dict[str, tuple[Any, Any]] = {
    "target": (_option(str, "HOST:PORT", "The server.", "TARGET"), DEFAULT_TARGET),
    "tls": (_option(bool, None, "Encrypt. Any of the next four does too.", "TLS", "--tls"), False),
    "ca": (_option(Path | None, "FILE", "CAs, PEM, that sign the server. Default: the public ones.", "CA", **_FILE), None),
    "cert": (_option(Path | None, "FILE", "Certificate, PEM, that says who calls (mTLS).", "CERT", **_FILE), None),
    "key": (_option(Path | None, "FILE", "Its private key, PEM.", "KEY", **_FILE), None),
    "server_name": (_option(str | None, "NAME", "In the server's certificate. Default: HOST.", "SERVER_NAME"), None),
    "token": (
        _option(
            str | None,
            _WHERE,
            f"Bearer token: where it is, and not itself. Default: {PREFIX}TOKEN, or the file of {PREFIX}TOKEN_FILE.",
            None,
        ),
        None,
    ),
    "api_key": (
        _option(str | None, _WHERE, f"API key, likewise. Default: {PREFIX}API_KEY, or the file of {PREFIX}API_KEY_FILE.", None),
        None,
    ),
    "oauth_url": (_option(str | None, "URL", "Token endpoint that gives tokens for client credentials.", "OAUTH_URL"), None),
    "oauth_client": (_option(str | None, "ID", "Client id there.", "OAUTH_CLIENT"), None),
    "oauth_secret": (
        _option(
            str | None,
            _WHERE,
            f"Client secret, likewise. Default: {PREFIX}OAUTH_SECRET, or the file of {PREFIX}OAUTH_SECRET_FILE.",
            None,
        ),
        None,
    ),
    "oauth_scope": (_option(str | None, "SCOPES", "Scopes to ask for, with blanks between them.", "OAUTH_SCOPE"), None),
    "oauth_audience": (_option(str | None, "NAME", "Audience to ask for.", "OAUTH_AUDIENCE"), None),
    "oauth_resource": (_option(str | None, "URI", "Resource to ask for (RFC 8707).", "OAUTH_RESOURCE"), None),
    "oauth_ca": (_option(Path | None, "FILE", "CAs, PEM, of the endpoint. Default: the public ones.", "OAUTH_CA", **_FILE), None),
    "oauth_post": (_option(bool, None, "Send the secret in the form and not in a header.", "OAUTH_POST", "--oauth-post"), False),
}
