"""`aligner retime`: a subtitle file gets the times of a recording."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.alignment import output
from aligner_svc.cli.failures import Failure, from_client, reported, warn
from aligner_svc.cli.interrupt import exit_on_interrupt
from aligner_svc.cli.server_options import Connection, ServerOptions, with_server

if TYPE_CHECKING:
    from aligner_client import Alignment, Cue, Retiming, TranscriptFormat

_SUFFIXES = {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ass"}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_FLAGGED = 50
"""Cues that are listed one by one."""
_SHOWN = 48
"""Characters of a cue's text."""
_STEP = 0.25
"""Seconds between the shifts of neighbours, above which the table begins another line."""
_LIMITS = "The new times"


@with_server
def retime(  # noqa: PLR0917 - typer makes an option of each
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The film, or its sound.")],
    subtitles: Annotated[Path, typer.Argument(metavar="SUBS", exists=True, dir_okay=False, help="SRT, WebVTT, ASS or SSA file.")],
    server: ServerOptions,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="OUT", help="Output file. Default: stdout.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would move, and write nothing.")] = False,
    language: Annotated[str, typer.Option(metavar="TAG", help="Language spoken, as a BCP-47 tag.")] = "en",
    text_encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of SUBS, e.g. cp1252. Default: UTF-8, or what its first bytes say.")
    ] = None,
    max_shift: Annotated[
        float, typer.Option(min=0, metavar="S", help="Cues do not move farther; 0: no limit.", rich_help_panel=_LIMITS)
    ] = 0.0,
    lead_in: Annotated[
        float, typer.Option(min=0, max=5, metavar="S", help="Begin so long before the first word.", rich_help_panel=_LIMITS)
    ] = 0.0,
    lead_out: Annotated[
        float, typer.Option(min=0, max=10, metavar="S", help="Stay so long after the last word.", rich_help_panel=_LIMITS)
    ] = 0.0,
    min_duration: Annotated[
        float, typer.Option(min=0, max=60, metavar="S", help="Unless the next cue comes sooner.", rich_help_panel=_LIMITS)
    ] = 0.0,
    max_duration: Annotated[
        float, typer.Option(min=0, metavar="S", help="0: as long as in SUBS.", rich_help_panel=_LIMITS)
    ] = 0.0,
    frame_rate: Annotated[
        float,
        typer.Option(
            "--fps", min=0, max=1000, metavar="N", help="Round times to frames of so many a second.", rich_help_panel=_LIMITS
        ),
    ] = 0.0,
    track: Annotated[int, typer.Option(min=0, metavar="N", help="Audio track of a file with several, from 1.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="Time limit. Default: 10 min, streamed 5 h.")
    ] = None,
) -> None:
    """Give the cues of a subtitle file the times at which they are said in FILE.

    Numbers, text, tags and line breaks of SUBS stay as they are, byte for byte. A table shows what moved by how much, and which
    cues were not heard; it goes to stderr when the subtitles go to stdout.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 69 server unavailable; 130 interrupted.
    """
    chosen = _SUFFIXES.get(subtitles.suffix.lower())
    if chosen is None:
        raise typer.BadParameter(f"the suffix must be one of {', '.join(_SUFFIXES)}", param_hint="SUBS")
    if max_duration and max_duration < min_duration:
        raise typer.BadParameter("less than --min-duration", param_hint="--max-duration")
    if out is not None and out.is_dir():
        raise typer.BadParameter(f"{out} is a directory", param_hint="--out")
    connection = server.connection(stdin_taken=False)
    with reported():
        text, codec, bom = _read(subtitles, text_encoding)
        from aligner_client import Retiming, TranscriptFormat

        options = Retiming(max_shift, lead_in, lead_out, min_duration, max_duration, frame_rate)
        alignment = _align(connection, file, text, language, track, timeout, TranscriptFormat(chosen), options)
        _show(alignment, text, to_stderr=out is None and not dry_run)
        if not dry_run:
            _write(bom + alignment.retimed().encode(codec), out)


def _read(path: Path, named: str | None) -> tuple[str, str, bytes]:
    """The text, its encoding and its byte order mark. Raises Failure, OSError."""
    data = path.read_bytes()
    bom, codec = next(((bom, codec) for bom, codec in _BOMS if data.startswith(bom)), (b"", named or "utf-8"))
    try:
        return data[len(bom) :].decode(codec), codec, bom
    except UnicodeDecodeError as error:
        hint = "give its encoding with --text-encoding, e.g. cp1252"
        raise Failure(str(path), why=f"not {codec} text (byte {error.start})", hint=hint) from None
    except LookupError:
        raise typer.BadParameter(f"Python knows no encoding {codec}", param_hint="--text-encoding") from None


def _align(  # noqa: PLR0917 - one for each option
    connection: Connection,
    file: Path,
    text: str,
    language: str,
    track: int,
    timeout: float | None,
    transcript_format: TranscriptFormat,
    options: Retiming,
) -> Alignment:
    from aligner_client import AlignerClientError
    from aligner_svc.cli.alignment import progress

    try:
        with exit_on_interrupt(), connection.open() as aligner, progress.stream_bar(file.stat().st_size) as on_progress:
            return aligner.align(
                file,
                text,
                language=language,
                audio_track=track,
                transcript_format=transcript_format,
                retiming=options,
                timeout="auto" if timeout is None else timeout,
                on_progress=on_progress,
            )
    except AlignerClientError as error:
        raise from_client(error, f"{file} could not be aligned", connection.target) from error


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        typer.echo(data, nl=False)
    else:
        output.write_bytes(out, data)


def _show(alignment: Alignment, text: str, *, to_stderr: bool) -> None:
    from rich.console import Console

    from aligner_client import CueStatus
    from aligner_svc.cli.tables import plain_table, print_fitted, printable

    console = Console(stderr=to_stderr, highlight=False)
    table = plain_table("cues", "from", "moved by", "", right=("cues", "from", "moved by"))
    for first, group in _runs(alignment.cues):
        shifts = [cue.shift for cue in group]
        numbers = f"{first}" if len(group) == 1 else f"{first} to {first + len(group) - 1}"
        spread = f"{shifts[0]:+.2f} s" if max(shifts) - min(shifts) < 0.05 else f"{min(shifts):+.2f} to {max(shifts):+.2f} s"
        table.add_row(numbers, f"{group[0].start:.2f}", spread, "")
    print_fitted(console, table)
    flagged = [
        (number, cue) for number, cue in enumerate(alignment.cues, 1) if cue.status not in {CueStatus.FOUND, CueStatus.MOVED}
    ]
    if flagged:
        table = plain_table("cue", "from", "moved by", "why", "text", right=("cue", "from", "moved by"))
        for number, cue in flagged[:_FLAGGED]:
            shown = " ".join(text[cue.char_start : cue.char_end].split())[:_SHOWN]
            why = cue.status.value.lower().replace("_", " ")
            table.add_row(str(number), f"{cue.start:.2f}", f"{cue.shift:+.2f} s", why, printable(shown))
        console.print()
        print_fitted(console, table, drop={"text"})
        if len(flagged) > _FLAGGED:
            console.print(f"and {len(flagged) - _FLAGGED} more")
    found = sum(cue.status is CueStatus.FOUND for cue in alignment.cues)
    console.print(
        f"\n{found} of {len(alignment.cues)} cues found by their words, match {alignment.match_score:.2f}", style="bold"
    )
    for warning in alignment.warnings:
        warn(printable(f"{warning.message} ({warning.code})").plain)


def _runs(cues: Sequence[Cue]) -> Iterator[tuple[int, list[Cue]]]:
    """Neighbouring cues that moved by the same, or a little more each, with the number of the first."""
    run = 0
    marked: list[tuple[int, Cue]] = []
    for cue in cues:
        run += bool(marked) and abs(cue.shift - marked[-1][1].shift) > _STEP
        marked.append((run, cue))
    number = 1
    for _, group in groupby(marked, key=lambda one: one[0]):
        members = [cue for _, cue in group]
        yield number, members
        number += len(members)
