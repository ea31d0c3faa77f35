"""`aligner align`: one file, stdin, or a directory of files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aligner_svc.cli.alignment import corpus
from aligner_svc.cli.alignment.output import SUBTITLES, SUFFIXES, choose
from aligner_svc.cli.alignment.request import HeaderlessEncoding, OutputFormat, Request
from aligner_svc.cli.failures import reported
from aligner_svc.cli.server_options import ServerOptions, with_server

STDIN = Path("-")
_SUBTITLES = "Subtitles (srt, vtt, word-vtt, ass): at most"


@with_server
def align(  # noqa: PLR0912, PLR0917 - typer makes an option of each, and some exclude others
    file: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="Audio file; - reads stdin; of a directory all audio files are aligned.")
    ],
    server: ServerOptions,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Transcript. Default: the .txt or .lab file next to the audio.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="File with the transcript, UTF-8.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="N=FILE", help="Transcript of one channel, from 0: --channel 0=agent.txt --channel 1=caller.txt"),
    ] = None,
    language: Annotated[str, typer.Option(metavar="TAG", help="Language spoken, as a BCP-47 tag.")] = "en",
    output_format: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format", "-f", help="Output format. Default: by the suffix of OUT, else table on a terminal, json otherwise."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT", help="Output file. For DIR: directory for the results.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave files alone whose result is there already: to continue a run.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Upload in chunks, as is always done for stdin and for large files.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Play FILE at the pace of speech, or read stdin as it comes, and print words as found."),
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="For DIR: files aligned at the same time.")] = 4,
    encoding: Annotated[
        HeaderlessEncoding | None, typer.Option(help="Encoding of audio without a header. Needs --sample-rate.")
    ] = None,
    sample_rate: Annotated[int, typer.Option(min=0, metavar="HZ", help="Sample rate of audio without a header.")] = 0,
    channels: Annotated[int, typer.Option(min=0, metavar="N", help="Channels of audio without a header; 0 means one.")] = 0,
    min_match_score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Fail if transcript and audio match less, 0 to 1.")
    ] = None,
    track: Annotated[
        int, typer.Option(min=0, metavar="N", help="Audio track of a file with several, from 1; 0: one with sound.")
    ] = 0,
    phones: Annotated[
        bool, typer.Option("--phones", help="With the sounds of the words: in json, textgrid (a second tier) and phone-ctm.")
    ] = False,
    pronunciations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="How words are said, a line each: Zbrzezny Z B ER Z N IY"),
    ] = None,
    line_length: Annotated[
        int | None, typer.Option(min=8, max=200, metavar="N", help="Characters a line. Default: 42.", rich_help_panel=_SUBTITLES)
    ] = None,
    lines: Annotated[
        int | None, typer.Option(min=1, max=10, metavar="N", help="Lines at a time. Default: 2.", rich_help_panel=_SUBTITLES)
    ] = None,
    cue_seconds: Annotated[
        float | None,
        typer.Option(min=0.5, max=60, metavar="S", help="Seconds that a subtitle stays. Default: 7.", rich_help_panel=_SUBTITLES),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Time limit per file, retries included. Default: 10 min, streamed 5 h."),
    ] = None,
) -> None:
    """Find out when each word of a transcript was spoken.

    FILE: prints a table on a terminal, JSON otherwise.
    --live: prints each word with its times as the server finds it; ffmpeg ... -f wav - | aligner align - --live --text-file TEXT
    DIR: pairs each audio file with the .txt or .lab file of the same name; writes one result per pair below --out.
    Files that fail are listed at the end and do not stop the others.
    Warnings are part of JSON and the table; with other formats, and for DIR, they are printed to stderr.

    Exit codes: 0 all aligned; 1 something failed; 2 wrong usage; 69 server unavailable; 130 interrupted.
    """
    if encoding is None and (sample_rate or channels):
        raise typer.BadParameter("only for audio without a header: needs --encoding", param_hint="--sample-rate, --channels")
    if encoding is not None and not sample_rate:
        raise typer.BadParameter("needed with --encoding", param_hint="--sample-rate")
    if (text is not None) + (text_file is not None) + bool(channel) > 1:
        raise typer.BadParameter("only one of them may be given", param_hint="--text, --text-file, --channel")
    if file != STDIN and not file.exists():
        raise typer.BadParameter(f"{file} does not exist", param_hint="FILE")
    if live and (output_format is not None or out is not None or file.is_dir() or channel):
        raise typer.BadParameter("prints words as they come, of one recording and one transcript", param_hint="--live")
    phones = phones or choose(output_format, out) is OutputFormat.PHONE_CTM
    if (phones or pronunciations) and (live or file == STDIN):
        raise typer.BadParameter("of a file, when all of it is aligned", param_hint="--phones, --pronunciations")
    connection = server.connection(stdin_taken=file == STDIN)
    given = {"line": line_length, "lines": lines, "seconds": cue_seconds}
    layout: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with reported():
        chosen = (output_format or OutputFormat.JSON) if file.is_dir() else choose(output_format, out)
        if layout and chosen not in SUBTITLES:
            raise typer.BadParameter(f"{chosen} has no subtitles", param_hint="--line-length, --lines, --cue-seconds")
        from aligner_client.formats import CueLayout

        request = Request(
            connection,
            language,
            encoding,
            sample_rate,
            channels,
            track,
            timeout,
            min_match_score,
            CueLayout(**layout),
            phones,
            corpus.pronunciations(pronunciations),
        )
        if file.is_dir():
            if text is not None or text_file is not None or channel:
                raise typer.BadParameter("not for a directory", param_hint="--text, --text-file, --channel")
            _align_directory(file, out, chosen, request, jobs, skip_existing=skip_existing)
            return
        if out is not None and out.is_dir():
            raise typer.BadParameter(f"{out} is a directory", param_hint="--out")
        if skip_existing and out is None:
            raise typer.BadParameter("needs --out", param_hint="--skip-existing")
        if skip_existing and out is not None and corpus.is_done(out):
            typer.echo(f"{out} is there already", err=True)
            return
        audio = None if file == STDIN else file
        if live:
            from aligner_svc.cli.alignment.live import run as run_live

            run_live(audio, request, _transcript(file, text, text_file))
            return
        from aligner_svc.cli.alignment.one_file import run

        transcript = corpus.channels(channel) if channel else _transcript(file, text, text_file)
        run(audio, out, chosen, request, transcript, stream=stream)


def _align_directory(
    root: Path, out: Path | None, chosen: OutputFormat, request: Request, jobs: int, *, skip_existing: bool
) -> None:
    if out is None:
        raise typer.BadParameter("needed for a directory", param_hint="--out")
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is not a directory", param_hint="--out")
    if chosen is OutputFormat.TABLE:
        raise typer.BadParameter("table is not available for a directory", param_hint="--format")
    from aligner_svc.cli.alignment.directory import run

    run(corpus.plan(root, out, SUFFIXES[chosen]), root, out, chosen, request, jobs=jobs, skip_existing=skip_existing)


def _transcript(file: Path, text: str | None, text_file: Path | None) -> str:
    if text is not None:
        return text
    if text_file is not None:
        return corpus.read_text(text_file)
    if file == STDIN:
        if sys.stdin.isatty():
            raise typer.BadParameter("pipe the audio in: aligner align - --text-file TEXT < FILE", param_hint="FILE")
        raise typer.BadParameter("needed when the audio comes from stdin", param_hint="--text, --text-file")
    beside = corpus.text_beside(file)
    if beside is None:
        names = " or ".join(str(file.with_suffix(suffix)) for suffix in corpus.TEXT_SUFFIXES)
        raise typer.BadParameter(f"needed, as there is no {names}", param_hint="--text, --text-file")
    return corpus.read_text(beside)
