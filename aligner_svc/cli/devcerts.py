"""`aligner devcerts`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import USAGE, Failure, reported, warn

if TYPE_CHECKING:
    from aligner_svc.transport.devcerts import Pair

_MAX_DAYS = 397
"""The longest that browsers and some libraries take of any certificate."""


def devcerts(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where they go.")] = Path("devcerts"),
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The server's name or address, beside localhost, 127.0.0.1 and ::1; may be repeated."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A client to make a certificate for; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=_MAX_DAYS, metavar="N", help="How long they are good.")] = 30,
    force: Annotated[bool, typer.Option("--force", help="A new CA in place of the one that is there.")] = False,
) -> None:
    """Make certificates to try TLS and mTLS with: a throw-away CA, a server's and a client's. Not for production.

    Where DIR has such a CA already, it signs what is asked for:
    --client NAME adds or renews that client, --host NAME renews the server.

    Exit codes: 0 done; 1 failed; 2 wrong usage.
    """
    from aligner_svc.transport import devcerts as made

    hosts, clients = [name.lower() for name in host or ()], list(client or ())
    with reported():
        for name in hosts:
            if not made.is_host(name):
                raise Failure(f"'{name}' is no name of a host", hint="a DNS name or an IP address, no port", exit_code=USAGE)
        for name in clients:
            if not made.is_client_name(name):
                raise Failure(
                    f"'{name}' cannot be a client's name",
                    hint="lower-case letters, digits and '-', 63 at most; not ca or server",
                    exit_code=USAGE,
                )
        there = any((directory / name).exists() for name in ("ca.pem", "ca.key"))
        anew = force or not there
        if not (anew or hosts or clients):
            raise Failure(
                f"{directory} has a CA already",
                hint="--client NAME adds a client, --host NAME renews the server, --force makes everything anew",
            )
        if anew and not clients:
            clients = ["client"]
        servers = ["server"] if anew or hosts or not (directory / "server.pem").exists() else []
        _check_ours(directory, [*(["ca"] if anew else []), *servers, *clients])
        directory.mkdir(parents=True, exist_ok=True)
        ca = _new_ca(directory, days) if anew else _old_ca(directory)
        hosts = list(dict.fromkeys([*made.LOCAL_HOSTS, *hosts]))
        for name in servers:
            made.write(directory, name, made.server(ca, hosts, days))
        for name in clients:
            made.write(directory, name, made.client(ca, name, days))
        _show(directory, ca, hosts if servers else [], clients)
        _warn_of_others(directory, ca)


def _check_ours(directory: Path, names: Sequence[str]) -> None:
    from aligner_svc.transport import devcerts as made

    foreign = [name for name in names if not made.may_write(directory, name)]
    if foreign:
        raise Failure(
            f"{directory / foreign[0]}.pem or .key is there and this command did not make it",
            why="a certificate or key that matters to somebody is not written over, with --force or without",
            hint="another DIR",
        )


def _new_ca(directory: Path, days: int) -> Pair:
    from aligner_svc.transport import devcerts as made

    ca = made.authority(days)
    made.write(directory, "ca", ca)
    return ca


def _old_ca(directory: Path) -> Pair:
    from datetime import UTC, datetime

    from aligner_svc.transport import devcerts as made

    hint = "--force makes everything anew"
    try:
        ca = made.read(directory, "ca")
    except (OSError, ValueError) as error:
        why = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise Failure(f"the CA in {directory} cannot be used", why=why.lower(), hint=hint) from None
    if ca.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise Failure(f"the CA in {directory} has expired", hint=hint)
    return ca


def _warn_of_others(directory: Path, ca: Pair) -> None:
    """Certificates of an earlier CA, which the new one does not vouch for."""
    from aligner_svc.transport import devcerts as made

    for path in sorted(directory.glob("*.pem")):
        if made.may_write(directory, path.stem) and not made.signed_by(path, ca):
            warn(f"{path} was signed by an earlier CA and is of no use any more")


def _show(directory: Path, ca: Pair, hosts: Sequence[str], clients: Sequence[str]) -> None:
    from aligner_svc.transport import devcerts as made

    def path(name: str) -> str:
        return shlex.quote(str(directory / name))

    lines = [f"{directory / 'ca.pem'}: the CA, until {ca.certificate.not_valid_after_utc:%Y-%m-%d}"]
    if hosts:
        lines.append(f"{directory / 'server.pem'}: {', '.join(hosts)}")
    lines += [f"{directory / name}.pem: {made.spiffe_id(name)}" for name in clients]
    lines.append("For tests alone: who has ca.key can be anybody.")
    lines += [
        "",
        "The server:",
        f"  export ALIGNER_TLS__CERTIFICATE={path('server.pem')} ALIGNER_TLS__KEY={path('server.key')}",
        f"  export ALIGNER_TLS__CLIENT_CA={path('ca.pem')} ALIGNER_AUTH__METHODS=mtls",
        "  aligner serve --profile prod",
    ]
    if clients:
        certificate, key = path(f"{clients[0]}.pem"), path(f"{clients[0]}.key")
        lines += [
            "",
            "A client:",
            f"  aligner info --ca {path('ca.pem')} --cert {certificate} --key {key}",
            "",
            "Another one, from the folder of the project:",
            f"  grpcurl -cacert {path('ca.pem')} -cert {certificate} -key {key} -import-path protos \\",
            "    -proto aligner/v1/aligner.proto localhost:50051 aligner.v1.Aligner/GetServerInfo",
        ]
    typer.echo("\n".join(lines))
