"""`aligner align`: one file, stdin, or a directory of files."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from aligner_svc.cli.alignment import corpus
from aligner_svc.cli.alignment.output import SUFFIXES, choose
from aligner_svc.cli.credentials import ServerOptions
from aligner_svc.cli.failures import reported
from aligner_svc.cli.options import HeaderlessEncoding, OutputFormat, Request
from aligner_svc.cli.server_options import with_server

STDIN = Path("-")


@with_server
def align(  # noqa: PLR0917 - typer makes a flag of each
    file: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="Audio; - reads it from stdin; a directory is aligned file by file.")
    ],
    server: ServerOptions,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What was said. Default: the .txt or .lab file beside the audio.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="What was said, UTF-8.")
    ] = None,
    language: Annotated[str, typer.Option(metavar="TAG", help="BCP-47 tag of what is spoken.")] = "en",
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", "-f", help="Default: by the name of OUT; else table on a terminal, json elsewhere."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT", help="Write there. For DIR: the directory for the results.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Send in chunks. Files over the server's limit for one message always are.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="For DIR: files at a time.")] = 4,
    encoding: Annotated[
        HeaderlessEncoding | None, typer.Option(help="The audio is headerless samples. Needs --sample-rate.")
    ] = None,
    sample_rate: Annotated[int, typer.Option(min=0, metavar="HZ", help="Headerless audio only.")] = 0,
    channels: Annotated[int, typer.Option(min=0, metavar="N", help="Headerless audio only; 0 means one.")] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="For each file, retries included. Default: 10 min, streamed 5 h."),
    ] = None,
) -> None:
    """Find when each word was spoken.

    FILE: prints a table on a terminal, JSON into a pipe. DIR: pairs each audio file with the .txt or .lab beside it
    and writes one result each below --out; what fails is listed at the end and the rest goes on.
    The answer's warnings are in JSON and the table; of other formats, and of a directory, they are told on stderr.

    Exit codes: 0 all aligned; 1 something failed; 2 wrong usage; 69 the server cannot be reached; 130 interrupted.
    """
    if encoding is None and (sample_rate or channels):
        raise typer.BadParameter("only for headerless audio: name its --encoding", param_hint="--sample-rate, --channels")
    if encoding is not None and not sample_rate:
        raise typer.BadParameter("needed with --encoding", param_hint="--sample-rate")
    if text is not None and text_file is not None:
        raise typer.BadParameter("give one of them", param_hint="--text, --text-file")
    if file != STDIN and not file.exists():
        raise typer.BadParameter(f"{file} does not exist", param_hint="FILE")
    connection = server.connection(stdin_taken=file == STDIN)
    request = Request(connection, language, encoding, sample_rate, channels, timeout)
    with reported():
        if file.is_dir():
            _align_tree(file, out, output_format, request, jobs, has_text=text is not None or text_file is not None)
        else:
            _align_file(file, out, output_format, request, _transcript(file, text, text_file), stream=stream)


def _align_tree(
    root: Path, out: Path | None, wanted: OutputFormat | None, request: Request, jobs: int, *, has_text: bool
) -> None:
    if has_text:
        raise typer.BadParameter("a directory's texts lie beside its audio", param_hint="--text, --text-file")
    if out is None:
        raise typer.BadParameter("needed for a directory", param_hint="--out")
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is not a directory", param_hint="--out")
    if wanted is OutputFormat.TABLE:
        raise typer.BadParameter("a table is for one file", param_hint="--format")
    chosen = wanted or OutputFormat.JSON
    from aligner_svc.cli.alignment.directory import run

    run(corpus.plan(root, out, SUFFIXES[chosen]), root, out, chosen, request, jobs=jobs)


def _align_file(
    file: Path, out: Path | None, wanted: OutputFormat | None, request: Request, transcript: str, *, stream: bool
) -> None:
    if out is not None and out.is_dir():
        raise typer.BadParameter(f"{out} is a directory", param_hint="--out")
    from aligner_svc.cli.alignment.one_file import run

    run(None if file == STDIN else file, out, choose(wanted, out), request, transcript, stream=stream)


def _transcript(file: Path, text: str | None, text_file: Path | None) -> str:
    if text is not None:
        return text
    if text_file is not None:
        return corpus.read_text(text_file)
    if file == STDIN:
        if sys.stdin.isatty():
            raise typer.BadParameter("audio comes from a pipe: aligner align - < FILE", param_hint="FILE")
        raise typer.BadParameter("needed when the audio comes from stdin", param_hint="--text, --text-file")
    beside = corpus.text_beside(file)
    if beside is None:
        names = " or ".join(str(file.with_suffix(suffix)) for suffix in corpus.TEXT_SUFFIXES)
        raise typer.BadParameter(f"needed, as there is no {names}", param_hint="--text, --text-file")
    return corpus.read_text(beside)
