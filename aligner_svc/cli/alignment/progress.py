"""Progress on stderr, if stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from aligner_client import Progress as Report
from aligner_client import ProgressCallback, Stage


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Show a spinner during a call that reports no progress."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(escape(message)):
        yield


@contextmanager
def stream_bar(size: int | None) -> Iterator[ProgressCallback | None]:
    """Show a bar for one stream: bytes of `size` (None: unknown) during the upload, then seconds aligned."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("uploading", total=size)

        def show(report: Report) -> None:
            if report.stage is Stage.ALIGNING:
                bar.update(task, description="aligning", completed=report.aligned_seconds, total=report.audio_seconds)
            elif report.stage is Stage.DECODING:
                bar.update(task, description="decoding", completed=0, total=None)
            else:
                bar.update(task, completed=report.received_bytes)

        yield show


@contextmanager
def files_bar(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar over many files with the time left. Call the returned function once per file."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (
        TextColumn("aligning"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("aligning", total=total)
        yield lambda: bar.advance(task)
