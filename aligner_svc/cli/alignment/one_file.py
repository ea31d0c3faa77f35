"""`aligner align FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from aligner_client import Aligner, AlignerClientError
from aligner_client.messages import Transcript
from aligner_svc.cli.alignment import output, progress
from aligner_svc.cli.alignment.request import OutputFormat, Request
from aligner_svc.cli.alignment.table import print_alignment
from aligner_svc.cli.failures import from_client, warn
from aligner_svc.cli.interrupt import exit_on_interrupt
from aligner_svc.cli.tables import printable
from aligner_svc.domain import Alignment


def run(
    audio: Path | None, out: Path | None, chosen: OutputFormat, request: Request, transcript: Transcript, *, stream: bool
) -> None:
    """Align one file, or stdin where `audio` is None, and write the result. Raises Failure, OSError."""
    name = "stdin" if audio is None else str(audio)
    try:
        with exit_on_interrupt(), request.connection.open() as aligner:
            alignment = _align(aligner, audio, request, transcript, stream=stream)
    except AlignerClientError as error:
        raise from_client(error, f"{name} could not be aligned", request.connection.target) from error
    if chosen is OutputFormat.TABLE:
        print_alignment(alignment, out)
    else:
        recording = "stdin" if audio is None else audio.stem
        headerless = request.encoding is not None  # which is not decoded here
        text = output.render(
            alignment, chosen, alignment.transcript, recording, request.layout, audio=None if headerless else audio, out=out
        )
        output.write(text, out)
    if chosen not in output.WITH_WARNINGS:
        for warning in alignment.warnings:
            warn(printable(f"{warning.message} ({warning.code})").plain)


def _align(aligner: Aligner, audio: Path | None, request: Request, transcript: Transcript, *, stream: bool) -> Alignment:
    if audio is None:
        # Unbuffered: a thread interrupted in a read holds the buffer's lock, which aborts the interpreter at exit.
        stdin: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        with progress.stream_bar(None) as on_progress:
            return aligner.stream_align(stdin, transcript, on_progress=on_progress, **request.keywords())
    # A named pipe has no size, and is not read ahead to find out.
    size = audio.stat().st_size if audio.is_file() else None
    if not (request.phones or request.pronunciations) and (
        stream or size is None or size > aligner.server_info().limits.unary_audio_bytes
    ):
        with progress.stream_bar(size) as on_progress:
            return aligner.stream_align(audio, transcript, on_progress=on_progress, **request.keywords())
    with progress.waiting(f"aligning {audio.name}"):
        return aligner.align(audio, transcript, **request.keywords())
