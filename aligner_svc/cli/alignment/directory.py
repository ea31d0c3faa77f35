"""`aligner align DIR`: many files over one connection; a bad one never stops the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from aligner_svc import domain
from aligner_svc.cli.alignment import output, progress
from aligner_svc.cli.alignment.corpus import CorpusJob, Plan, read_text
from aligner_svc.cli.alignment.table import printable
from aligner_svc.cli.failures import FAILED, Failure, from_client, warn
from aligner_svc.cli.interrupt import leaving_at_once
from aligner_svc.cli.options import OutputFormat, Request
from aligner_svc.client import AlignerClientError, AsyncAligner


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that was not aligned: the file, a word for programs, a sentence for people."""

    path: Path
    reason: str
    message: str


@dataclass(slots=True)
class Outcome:
    """What there is to report of a run, in the order in which the files were done."""

    failed: list[Failed] = field(default_factory=list)
    warned: list[tuple[Path, Sequence[domain.Warning]]] = field(default_factory=list)
    """Files that were aligned, each with the answer's warnings."""


def run(plan: Plan, root: Path, out: Path, chosen: OutputFormat, request: Request, *, jobs: int) -> None:
    """Align what is planned, `jobs` at a time, and report.

    Raises Failure when there is nothing to do or no server, typer.Exit(1) when a file failed.
    """
    for path in plan.audio_without_text:
        warn(f"skipped {path}: no .txt or .lab beside it")
    for path in plan.text_without_audio:
        warn(f"skipped {path}: no audio beside it")
    if not plan.jobs:
        raise Failure(f"nothing to align in {root}", why="no audio file has a .txt or .lab of its name beside it")
    try:
        with leaving_at_once():
            outcome = asyncio.run(_align_all(plan.jobs, chosen, request, jobs))
    except AlignerClientError as error:
        raise from_client(error, f"{root} could not be aligned", request.connection.target) from error
    skipped = len(plan.audio_without_text)
    _report(outcome, len(plan.jobs), skipped, root, out)
    if outcome.failed:
        raise typer.Exit(FAILED)


async def _align_all(jobs: list[CorpusJob], chosen: OutputFormat, request: Request, width: int) -> Outcome:
    async with request.connection.open_async() as aligner:
        # First of all: a server that is not there should be said once and not for every file.
        limit = (await aligner.server_info()).limits.unary_audio_bytes
        outcome = Outcome()
        queue = iter(jobs)
        with progress.files_bar(len(jobs)) as advance:

            async def work() -> None:
                for job in queue:
                    answer = await _try(aligner, limit, job, chosen, request)
                    if isinstance(answer, Failed):
                        outcome.failed.append(answer)
                    elif answer:
                        outcome.warned.append((job.audio, answer))
                    advance()

            async with asyncio.TaskGroup() as workers:
                for _ in range(min(width, len(jobs))):
                    workers.create_task(work())
        return outcome


async def _try(
    aligner: AsyncAligner, limit: int, job: CorpusJob, chosen: OutputFormat, request: Request
) -> Failed | Sequence[domain.Warning]:
    try:
        return await _align_one(aligner, limit, job, chosen, request)
    except AlignerClientError as error:
        return Failed(job.audio, error.reason, error.message)
    except Failure as error:
        return Failed(job.audio, "BAD_TEXT", f"{error.what}: {error.why}")
    except OSError as error:
        return Failed(job.audio, "FILE_ERROR", f"{error.filename}: {error.strerror}")
    except Exception as error:  # a bug met by one file is no reason to lose the others
        return Failed(job.audio, "BUG", f"{type(error).__name__}: {error}")


async def _align_one(
    aligner: AsyncAligner, limit: int, job: CorpusJob, chosen: OutputFormat, request: Request
) -> Sequence[domain.Warning]:
    transcript = read_text(job.text)
    if job.audio.stat().st_size > limit:
        alignment = await aligner.stream_align(job.audio, transcript, **request.keywords())
    else:
        alignment = await aligner.align(job.audio, transcript, **request.keywords())
    output.write_file(job.out, output.render(alignment, chosen, transcript, job.audio.stem))
    return alignment.warnings


def _report(outcome: Outcome, total: int, skipped: int, root: Path, out: Path) -> None:
    console = Console(stderr=True, highlight=False)
    failed = sorted(outcome.failed, key=lambda one: one.path)
    warned = sorted(outcome.warned, key=lambda one: one[0])
    if warned:
        table = _table("aligned with warnings", "file", "warning", "what")
        for path, warnings in warned:
            for warning in warnings:
                _add(table, path.relative_to(root), warning.code, warning.message, "yellow")
        console.print(table)
    if failed:
        table = _table("not aligned", "file", "reason", "why")
        for one in failed:
            _add(table, one.path.relative_to(root), one.reason, one.message, "red")
        console.print(table)
    line = f"{total - len(failed)} of {total} files aligned into {out}"
    if warned:
        line += f", {len(warned)} of them with warnings"
    if failed:
        line += f", {len(failed)} failed"
    if skipped:
        line += f", {skipped} skipped for want of a text"
    console.print(printable(line), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _add(table: Table, path: Path, code: str, message: str, colour: str) -> None:
    table.add_row(printable(str(path)), printable(code), printable(message), style=colour)
