"""`aligner top`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import INTERRUPTED, UNAVAILABLE, Failure, reported
from aligner_svc.cli.options import ConfigFile
from aligner_svc.cli.settings import load_settings

if TYPE_CHECKING:
    from aligner_svc.cli.top.scrape import Interval, Scrape

DEFAULT_URL = "http://127.0.0.1:9464/metrics"
_TIMEOUT = 2.0
"""Seconds that the server may take to answer."""
_MAX_FIRST_INTERVAL = 1.0
"""Seconds between the two scrapes of --once. There are two because rates need them."""


def top(
    metrics_url: Annotated[
        str | None,
        typer.Option("--metrics-url", metavar="URL", help="Metrics endpoint. Default: that of the settings, on this machine."),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time between updates.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    config: ConfigFile = None,
) -> None:
    """Watch a running server: calls, status codes, queue, batches, limits, refusals and dependencies.

    Reads the metrics endpoint and changes nothing. Stop with Ctrl-C.

    Exit codes: 0 success; 2 wrong usage or settings; 69 the endpoint is unavailable.
    """
    with reported():
        url = metrics_url or _url(config)
        if once:
            _once(url, min(interval, _MAX_FIRST_INTERVAL))
        else:
            _live(url, interval)


def _once(url: str, interval: float) -> None:
    from rich.console import Console

    from aligner_svc.cli.top.scrape import Interval, ScrapeError, scrape
    from aligner_svc.cli.top.view import frame

    try:
        before = scrape(url, _TIMEOUT)
        time.sleep(interval)
        measured = Interval.between(before, scrape(url, _TIMEOUT))
    except ScrapeError as error:
        hint = "start a server with metrics (setting metrics.listen), or give its --metrics-url"
        raise Failure(f"no metrics from {_shown(url)}", why=str(error), hint=hint, exit_code=UNAVAILABLE) from None
    Console(highlight=False).print(frame(measured, source=_shown(url), wall=time.time()))


def _live(url: str, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from aligner_svc.cli.top.scrape import Interval, ScrapeError, scrape
    from aligner_svc.cli.top.view import frame, span

    console = Console(highlight=False)
    measured: Interval | None = None
    last: Scrape | None = None
    try:
        with Live(Text(f"reading {_shown(url)} ..."), console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                trouble = ""
                try:
                    newest = scrape(url, _TIMEOUT)
                    measured, last = Interval.between(last, newest), newest
                except ScrapeError as error:
                    since = f"; last seen {span(time.monotonic() - last.at)} ago" if last is not None else ""
                    trouble = f"{error}{since}"
                if measured is not None:
                    live.update(frame(measured, source=_shown(url), wall=time.time(), trouble=trouble), refresh=True)
                else:
                    live.update(Text(f"no metrics from {_shown(url)}: {trouble}", style="bold red"), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        raise typer.Exit(0 if last is not None else INTERRUPTED) from None


def _shown(url: str) -> str:
    """The URL without a password."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "that URL"


def _url(config: Path | None) -> str:
    """The endpoint in the settings; for a wildcard address, on this machine."""
    listen = load_settings(config).settings.metrics.listen
    if not listen:
        return DEFAULT_URL
    host, _, port = listen.rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "*"}:  # noqa: S104 - connected to, not listened on
        host = "[::1]" if host == "[::]" else "127.0.0.1"
    return f"http://{host}:{port}/metrics"
