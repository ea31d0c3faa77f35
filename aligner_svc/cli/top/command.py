"""`aligner top`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import INTERRUPTED, UNAVAILABLE, Failure, from_settings, reported

if TYPE_CHECKING:
    from aligner_svc.cli.top.scrape import Interval, Scrape

DEFAULT_URL = "http://127.0.0.1:9464/metrics"
_WAIT_TIMEOUT = 2.0
"""Seconds the server may take to answer."""
_FIRST = 1.0
"""Seconds between the two looks of --once, at most: rates need two."""


def top(
    metrics_url: Annotated[
        str | None, typer.Option("--metrics-url", metavar="URL", help="Default: where the settings have it, on this machine.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML settings; default aligner.toml.")] = None,
) -> None:
    """Watch a running server: calls, codes, queue, batches, limits, refusals, and what it depends on.

    Reads its metrics endpoint and changes nothing. Ctrl-C ends it. Exit codes: 0 fine; 2 wrong usage or settings; 69 no answer.
    """
    with reported():
        url = metrics_url or _url(config)
        if once:
            _once(url, min(interval, _FIRST))
        else:
            _live(url, interval)


def _once(url: str, interval: float) -> None:
    from rich.console import Console

    from aligner_svc.cli.top.scrape import Interval
    from aligner_svc.cli.top.view import frame

    before = _look(url)
    time.sleep(interval)
    measured = Interval.between(before, _look(url))
    console = Console(highlight=False)
    console.print(frame(measured, source=_shown(url), wall=time.time()))


def _live(url: str, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from aligner_svc.cli.top.scrape import Interval, ScrapeError, fetch, parse
    from aligner_svc.cli.top.view import frame, span

    console = Console(highlight=False)
    shown: Interval | None = None
    last: Scrape | None = None
    try:
        with Live(Text(f"asking {_shown(url)} ..."), console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                trouble = ""
                try:
                    scrape = parse(fetch(url, _WAIT_TIMEOUT), time.monotonic())
                    shown, last = Interval.between(last, scrape), scrape
                except ScrapeError as error:
                    since = f"; last seen {span(time.monotonic() - last.at)} ago" if last is not None else ""
                    trouble = f"{error}{since}"
                if shown is not None:
                    live.update(frame(shown, source=_shown(url), wall=time.time(), trouble=trouble), refresh=True)
                else:
                    live.update(Text(f"no metrics from {_shown(url)}: {trouble}", style="bold red"), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        raise typer.Exit(0 if last is not None else INTERRUPTED) from None


def _look(url: str) -> Scrape:
    from aligner_svc.cli.top.scrape import ScrapeError, fetch, parse

    try:
        return parse(fetch(url, _WAIT_TIMEOUT), time.monotonic())
    except ScrapeError as error:
        hint = "does a server run there with metrics on (setting metrics.listen)? Else name it with --metrics-url"
        raise Failure(f"no metrics from {_shown(url)}", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None


def _shown(url: str) -> str:
    """Without a password that may be in it."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "that URL"


def _url(config: Path | None) -> str:
    """Of the endpoint the settings name; a wildcard address is this machine's."""
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)
    from aligner_svc.config import Settings
    from aligner_svc.config.report import SettingsProblem, load

    try:
        settings = load(Settings).settings
    except SettingsProblem as problem:
        raise from_settings(problem) from None
    listen = getattr(getattr(settings, "metrics", None), "listen", None)
    if not listen:
        return DEFAULT_URL
    host, _, port = str(listen).rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "*"}:  # noqa: S104 - asked and not listened on
        host = "[::1]" if host == "[::]" else "127.0.0.1"
    return f"http://{host}:{port}/metrics"
