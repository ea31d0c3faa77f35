"""`aligner cluster`: a first Ray cluster on this machine, for the engine ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import Failure, reported
from aligner_svc.cli.options import ConfigFile, Format, print_json, wants_json
from aligner_svc.cli.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aligner_svc.config import Settings

app = typer.Typer(name="cluster", help="A Ray cluster on this machine, for aligner serve --engine ray.", no_args_is_help=True)

_CERTIFICATE_DAYS = 397
_DEPLOY_SECONDS = 300.0
_STATUS_SECONDS = 60.0


@app.command("up")
def up(
    release: Annotated[
        str, typer.Option(metavar="NAME", help="Version of what the replicas run; another NAME replaces them one by one.")
    ] = "",
    cpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="Cores of the node. Default: all.")] = None,
    config: ConfigFile = None,
) -> None:
    """Start a head and a node on 127.0.0.1 unless they run, and deploy the engine's replicas.

    Again, after a change of settings or with another --release: replaces the replicas without losing a call.

    Token, certificates and log are in the directory that ray.directory names. Who can read the token runs code on every node.
    """
    from importlib.metadata import version

    from aligner_svc.engines.base import EngineStartError
    from aligner_svc.engines.ray_serve import credentials, local
    from aligner_svc.engines.ray_serve.app import Options

    with reported():
        settings = load_settings(config).settings
        ray = settings.ray
        try:
            make_credentials(ray.directory)
            if local.read(ray.directory) is None:
                started = local.start_head(ray.directory, ray.address, cpus or _cores())
                typer.echo(f"started a head at {ray.address} (pid {started.pid}); its log: {ray.directory / local.LOG}", err=True)
            options = Options.of(settings, release or version("aligner-svc"))
            found = local.deploy(ray.directory, ray.address, ray.application, options, wait=_DEPLOY_SECONDS)
        except EngineStartError as error:
            raise Failure("the cluster is not up", why=str(error)) from None
        _show(settings, found)
        token = ray.directory / credentials.TOKEN
        typer.echo(f"aligner serve --engine ray uses it. Keep {token} secret: who reads it runs code on every node.", err=True)


@app.command("status")
def status(output: Format = None, config: ConfigFile = None) -> None:
    """Show the nodes and the replicas. Exit codes: 0 it serves; 1 it does not."""
    from aligner_svc.engines.base import EngineStartError
    from aligner_svc.engines.ray_serve import local

    with reported():
        settings = load_settings(config).settings
        ray = settings.ray
        try:
            found = local.status(ray.directory, ray.address, ray.application, wait=_STATUS_SECONDS)
        except EngineStartError as error:
            raise Failure("the cluster does not answer", why=str(error)) from None
        if wants_json(output):
            print_json(dict(found))
        else:
            _show(settings, found)
        raise typer.Exit(0 if found["application"] == "RUNNING" else 1)


@app.command("down")
def down(config: ConfigFile = None) -> None:
    """End the head, the node and the replicas that `up` started here, and no other Ray process of this machine."""
    from aligner_svc.engines.ray_serve import local

    with reported():
        directory = load_settings(config).settings.ray.directory
        running = local.read(directory)
        if running is None or not local.stop_head(running, directory):
            raise Failure(f"no cluster that was started in {directory} runs")
        typer.echo(f"ended the cluster (pid {running.pid})", err=True)


def make_credentials(directory: Path) -> None:
    from aligner_svc.engines.ray_serve import credentials
    from aligner_svc.transport import devcerts

    credentials.make_token(directory)
    if not (directory / f"{credentials.NODE}.key").exists():
        ca = devcerts.authority(_CERTIFICATE_DAYS)
        devcerts.write(directory, credentials.CA, ca)
        devcerts.write(directory, credentials.NODE, devcerts.peer(ca, devcerts.LOCAL_HOSTS, _CERTIFICATE_DAYS))


def _cores() -> int:
    from aligner_svc.config.limits import available_cores

    return available_cores()


def _show(settings: Settings, found: Mapping[str, object]) -> None:
    nodes = found["nodes"]
    assert isinstance(nodes, list)
    for node in nodes:
        typer.echo(f"node {node['address']}: {'alive' if node['alive'] else 'dead'}, {node['cpus']:g} cores")
    replicas = found.get("replicas") or {}
    assert isinstance(replicas, dict)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in replicas.items()) or "none"
    typer.echo(
        f"{settings.ray.application} ({settings.ray.engine}): {found['application'] or 'not deployed'}; replicas: {counts}"
    )
    if message := found.get("message"):
        typer.echo(str(message))
