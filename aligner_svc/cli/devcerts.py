"""`aligner devcerts`."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import USAGE, Failure, reported, warn

if TYPE_CHECKING:
    from aligner_svc.transport.devcerts import Pair

_MAX_DAYS = 397
"""The longest validity that browsers and some libraries accept for any certificate."""


def devcerts(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory for the files.")] = Path("devcerts"),
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Name or address of the server, besides localhost, 127.0.0.1 and ::1; may be repeated."
        ),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Make a certificate for this client; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=_MAX_DAYS, metavar="N", help="Days until the certificates expire.")] = 30,
    force: Annotated[bool, typer.Option("--force", help="Make a new CA and new certificates in place of existing ones.")] = False,
) -> None:
    """Make certificates to try out TLS and mTLS: a throw-away CA, a server and a client. Not for production.

    An existing CA in DIR is used again: --client NAME adds or renews that client, --host NAME renews the server.

    Exit codes: 0 success; 1 failure; 2 wrong usage.
    """
    from aligner_svc.transport import devcerts as made

    hosts, clients = [name.lower() for name in host or ()], list(client or ())
    with reported():
        for name in itertools.filterfalse(made.is_host, hosts):
            hint = "give a DNS name or an IP address, without a port"
            raise Failure(f"'{name}' is not the name of a host", hint=hint, exit_code=USAGE)
        for name in itertools.filterfalse(made.is_client_name, clients):
            hint = "use lower-case letters, digits and '-', up to 63 characters; ca and server are reserved"
            raise Failure(f"'{name}' cannot be the name of a client", hint=hint, exit_code=USAGE)
        new = force or not any((directory / name).exists() for name in ("ca.pem", "ca.key"))
        if not (new or hosts or clients):
            raise Failure(
                f"{directory} has a CA already",
                hint="--client NAME adds a client, --host NAME renews the server, --force makes a new CA and new certificates",
            )
        if new and not clients:
            clients = ["client"]
        servers = ["server"] if new or hosts or not (directory / "server.pem").exists() else []
        for name in [*(["ca"] if new else []), *servers, *clients]:
            if not made.may_write(directory, name):
                raise Failure(
                    f"{directory / name}.pem or .key exists and was not made by this command",
                    why="files from elsewhere are never overwritten, not even with --force",
                    hint="use another DIR",
                )
        directory.mkdir(parents=True, exist_ok=True)
        if new:
            ca = made.authority(days)
            made.write(directory, "ca", ca)
        else:
            ca = _existing_ca(directory)
        hosts = list(dict.fromkeys([*made.LOCAL_HOSTS, *hosts]))
        for name in servers:
            made.write(directory, name, made.server(ca, hosts, days))
        for name in clients:
            made.write(directory, name, made.client(ca, name, days))
        _print_usage(directory, ca, hosts if servers else [], {name: made.spiffe_id(name) for name in clients})
        for path in sorted(directory.glob("*.pem")):
            if made.may_write(directory, path.stem) and not made.signed_by(path, ca):
                warn(f"{path} was signed by an earlier CA and is not valid any more")


def _existing_ca(directory: Path) -> Pair:
    from datetime import UTC, datetime

    from aligner_svc.transport import devcerts as made

    hint = "--force makes a new CA and new certificates"
    try:
        ca = made.read(directory, "ca")
    except (OSError, ValueError) as error:
        why = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise Failure(f"the CA in {directory} cannot be used", why=why.lower(), hint=hint) from None
    if ca.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise Failure(f"the CA in {directory} has expired", hint=hint)
    return ca


def _print_usage(directory: Path, ca: Pair, hosts: Sequence[str], clients: dict[str, str]) -> None:
    """Print what was made and how to use it. `clients`: identity by name."""

    def path(name: str) -> str:
        return shlex.quote(str(directory / name))

    lines = [f"{directory / 'ca.pem'}: the CA, valid until {ca.certificate.not_valid_after_utc:%Y-%m-%d}"]
    if hosts:
        lines.append(f"{directory / 'server.pem'}: {', '.join(hosts)}")
    lines += [f"{directory / name}.pem: {identity}" for name, identity in clients.items()]
    lines += [
        "For tests only: anyone who has ca.key can impersonate any server and client.",
        "",
        "The server:",
        f"  export ALIGNER_TLS__CERTIFICATE={path('server.pem')} ALIGNER_TLS__KEY={path('server.key')}",
        f"  export ALIGNER_TLS__CLIENT_CA={path('ca.pem')} ALIGNER_AUTH__METHODS=mtls",
        "  aligner serve --profile prod",
    ]
    if clients:
        name = next(iter(clients))
        certificate, key = path(f"{name}.pem"), path(f"{name}.key")
        lines += [
            "",
            "A client:",
            f"  aligner info --ca {path('ca.pem')} --cert {certificate} --key {key}",
            "",
            "The same with grpcurl, from the directory of the project:",
            f"  grpcurl -cacert {path('ca.pem')} -cert {certificate} -key {key} -import-path protos \\",
            "    -proto aligner/v1/aligner.proto localhost:50051 aligner.v1.Aligner/GetServerInfo",
        ]
    typer.echo("\n".join(lines))
