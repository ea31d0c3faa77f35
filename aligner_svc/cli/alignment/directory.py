"""`aligner align DIR`: many files over one connection. A file that fails does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console

from aligner_client import AlignerClientError, AsyncAligner
from aligner_svc import domain
from aligner_svc.cli.alignment import output, progress
from aligner_svc.cli.alignment.corpus import CorpusJob, Plan, is_done, read_text
from aligner_svc.cli.alignment.request import OutputFormat, Request
from aligner_svc.cli.failures import FAILED, Failure, from_client, warn
from aligner_svc.cli.interrupt import exit_on_interrupt
from aligner_svc.cli.tables import plain_table, print_fitted, printable


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that was not aligned: its path, the reason as a code and as a sentence."""

    path: Path
    reason: str
    message: str


@dataclass(slots=True)
class Outcome:
    """The files of a run that failed, and those that were aligned with warnings, in the order of their completion."""

    failed: list[Failed] = field(default_factory=list)
    warned: list[tuple[Path, Sequence[domain.Warning]]] = field(default_factory=list)


def run(
    plan: Plan, root: Path, out: Path, chosen: OutputFormat, request: Request, *, jobs: int, skip_existing: bool = False
) -> None:
    """Run the jobs of the plan, `jobs` at a time, and print a report. `skip_existing`: not those whose result is there.

    Raises Failure if there is nothing to do or no server, typer.Exit(1) if a file failed.
    """
    for path in plan.audio_without_text:
        warn(f"skipped {path}: no .txt or .lab file of the same name")
    for path in plan.text_without_audio:
        warn(f"skipped {path}: no audio file of the same name")
    if not plan.jobs:
        raise Failure(f"nothing to align in {root}", why="no audio file has a .txt or .lab file of the same name")
    wanted = [job for job in plan.jobs if not (skip_existing and is_done(job.out))]
    done = len(plan.jobs) - len(wanted)
    if not wanted:
        typer.echo(f"all {done} files are aligned in {out} already", err=True)
        return
    try:
        with exit_on_interrupt():
            outcome = asyncio.run(_align_all(wanted, chosen, request, jobs))
    except AlignerClientError as error:
        raise from_client(error, f"{root} could not be aligned", request.connection.target) from error
    _report(outcome, len(wanted), root, out, done=done, skipped=len(plan.audio_without_text))
    if outcome.failed:
        raise typer.Exit(FAILED)


async def _align_all(jobs: list[CorpusJob], chosen: OutputFormat, request: Request, width: int) -> Outcome:
    async with request.connection.open_async() as aligner:
        # The first call: an unavailable server is reported once and not for every file.
        limit = (await aligner.server_info()).limits.unary_audio_bytes
        outcome = Outcome()
        queue = iter(jobs)
        with progress.files_bar(len(jobs)) as advance:

            async def work() -> None:
                for job in queue:
                    answer = await _align(aligner, limit, job, chosen, request)
                    if isinstance(answer, Failed):
                        outcome.failed.append(answer)
                    elif answer:
                        outcome.warned.append((job.audio, answer))
                    advance()

            async with asyncio.TaskGroup() as workers:
                for _ in range(min(width, len(jobs))):
                    workers.create_task(work())
        return outcome


async def _align(
    aligner: AsyncAligner, limit: int, job: CorpusJob, chosen: OutputFormat, request: Request
) -> Failed | Sequence[domain.Warning]:
    """Align one file and write the result. Returns the warnings, or why it failed; never raises."""
    try:
        transcript = read_text(job.text)
        large = job.audio.stat().st_size > limit and not (
            request.phones or request.pronunciations
        )  # `align` sends those in chunks by itself
        align = aligner.stream_align if large else aligner.align
        alignment = await align(job.audio, transcript, **request.keywords())
        text = await asyncio.to_thread(
            output.render, alignment, chosen, transcript, job.audio.stem, request.layout, audio=job.audio, out=job.out
        )
        output.write_file(job.out, text)
    except AlignerClientError as error:
        return Failed(job.audio, error.reason, error.message)
    except Failure as error:
        return Failed(job.audio, "BAD_TEXT", f"{error.what}: {error.why}")
    except OSError as error:
        return Failed(job.audio, "FILE_ERROR", f"{error.filename}: {error.strerror}")
    except Exception as error:  # a bug that one file runs into must not stop the others
        return Failed(job.audio, "BUG", f"{type(error).__name__}: {error}")
    return alignment.warnings


def _report(outcome: Outcome, total: int, root: Path, out: Path, *, done: int, skipped: int) -> None:
    console = Console(stderr=True, highlight=False)
    warned = [(path, one.code, one.message) for path, warnings in outcome.warned for one in warnings]
    failed = [(one.path, one.reason, one.message) for one in outcome.failed]
    for title, columns, rows, colour in (
        ("aligned with warnings", ("file", "warning", "what"), warned, "yellow"),
        ("not aligned", ("file", "reason", "why"), failed, "red"),
    ):
        if rows:
            table = plain_table(*columns, fold=columns, title=title)
            for path, code, message in sorted(rows, key=lambda row: row[0]):
                table.add_row(printable(str(path.relative_to(root))), printable(code), printable(message), style=colour)
            print_fitted(console, table)
    line = f"{total - len(failed)} of {total} files aligned into {out}"
    if outcome.warned:
        line += f", {len(outcome.warned)} of them with warnings"
    if failed:
        line += f", {len(failed)} failed"
    if done:
        line += f", {done} were there already"
    if skipped:
        line += f", {skipped} skipped without a transcript"
    console.print(printable(line), soft_wrap=True)
