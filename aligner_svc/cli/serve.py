"""`aligner serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from aligner_svc.cli.failures import reported
from aligner_svc.cli.interrupt import ignored
from aligner_svc.cli.options import ConfigFile
from aligner_svc.cli.settings import load_settings


def serve(  # noqa: PLR0917 - typer makes an option of each
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="dev: loopback, plaintext, no authentication; prod: see docs/security.md."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address to listen on; port 0 picks a free one.")
    ] = None,
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="pocketsphinx, qwen or ray.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Number of aligner processes (pocketsphinx).")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PATH_OR_HUB_ID", help="Checkpoint (qwen): a directory or a Hugging Face repository.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cuda, cuda:N or cpu (qwen).")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="bf16 or fp32 (qwen).")] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Head of the Ray cluster that has the engine's processes (ray).")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that serve the port, for many cores; see docs/scaling.md.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the server in the foreground until SIGTERM, SIGQUIT or ctrl-C, which drain it; a second one does not wait.

    SIGHUP reads certificates, policy and quotas again; SIGUSR1 and SIGUSR2 log the stacks of all threads and tasks.

    Flags override ALIGNER_* variables, which override the settings file. `aligner config` lists all settings.

    Exit codes: 0 stopped by a signal; 1 failure; 2 wrong usage or settings.
    """
    import asyncio

    from aligner_svc.config.report import Override

    flags = [
        Override("--profile", ("server", "profile"), profile),
        Override("--listen", ("server", "listen"), listen),
        Override("--engine", ("engine", "name"), engine),
        Override("--workers", ("engine", "workers"), workers),
        Override("--model", ("qwen", "model"), model),
        Override("--device", ("qwen", "device"), device),
        Override("--dtype", ("qwen", "dtype"), dtype),
        Override("--processes", ("server", "processes"), processes),
        Override("--ray-address", ("ray", "address"), ray_address),
    ]
    with reported(), ignored("SIGHUP", "SIGUSR1", "SIGUSR2"):
        settings = load_settings(config, [flag for flag in flags if flag.value is not None]).settings
        from aligner_svc.processes import serve as run

        raise typer.Exit(asyncio.run(run(settings)))
