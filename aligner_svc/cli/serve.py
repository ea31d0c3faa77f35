"""`aligner serve`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from aligner_svc.cli.credentials import VARIABLES
from aligner_svc.cli.failures import from_settings, reported, warn


def serve(  # noqa: PLR0917 - typer makes flags of them; nobody gives them by position
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="dev: loopback, plaintext, nobody is asked who they are; prod: docs/security.md."),
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = None,
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="pocketsphinx or qwen.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Aligner processes (pocketsphinx).")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PATH_OR_HUB_ID", help="Checkpoint (qwen): a folder or a repository of the hub.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cuda, cuda:N or cpu (qwen).")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="bf16 or fp32 (qwen).")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML settings; default aligner.toml, if there.")] = None,
) -> None:
    """Run the server in the foreground until SIGTERM or ctrl-C.

    Flags win over ALIGNER_* variables, those over the settings file. `aligner config` shows all that can be set.

    Exit codes: 0 stopped in order; 1 failed; 2 wrong usage or settings.
    """
    if config is not None:
        # A variable and not an argument, so that worker processes see the same file.
        os.environ["ALIGNER_CONFIG"] = str(config)
    import asyncio

    from aligner_svc.config import Settings
    from aligner_svc.config.report import Override, SettingsProblem, load, unknown_variables

    flags = [
        Override("--profile", ("server", "profile"), profile),
        Override("--listen", ("server", "listen"), listen),
        Override("--engine", ("engine", "name"), engine),
        Override("--workers", ("engine", "workers"), workers),
        Override("--model", ("qwen", "model"), model),
        Override("--device", ("qwen", "device"), device),
        Override("--dtype", ("qwen", "dtype"), dtype),
    ]
    with reported():
        try:
            settings = load(Settings, [flag for flag in flags if flag.value is not None]).settings
        except SettingsProblem as problem:
            raise from_settings(problem) from None
        for unknown in unknown_variables(Settings, VARIABLES):
            warn(str(unknown))
        from aligner_svc.server import serve as run

        raise typer.Exit(asyncio.run(run(settings)))
