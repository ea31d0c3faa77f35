"""`aligner align FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from aligner_svc.cli.alignment import output, progress
from aligner_svc.cli.failures import from_client, warn_of
from aligner_svc.cli.interrupt import leaving_at_once
from aligner_svc.cli.options import OutputFormat, Request
from aligner_svc.client import Aligner, AlignerClientError
from aligner_svc.domain import Alignment


def run(audio: Path | None, out: Path | None, chosen: OutputFormat, request: Request, transcript: str, *, stream: bool) -> None:
    """Align one file, or stdin where `audio` is None, and write the answer. Raises Failure, OSError."""
    name = "stdin" if audio is None else str(audio)
    try:
        with leaving_at_once(), request.connection.open() as aligner:
            alignment = _align(aligner, audio, request, transcript, stream=stream)
    except AlignerClientError as error:
        raise from_client(error, f"{name} could not be aligned", request.connection.target) from error
    output.write(alignment, chosen, transcript, "stdin" if audio is None else audio.stem, out)
    if chosen not in output.HOLD_WARNINGS:
        warn_of(alignment)


def _align(aligner: Aligner, audio: Path | None, request: Request, transcript: str, *, stream: bool) -> Alignment:
    if audio is None:
        # Unbuffered: an interrupted thread that holds the buffer's lock in a read aborts the interpreter at its exit.
        stdin: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        with progress.stream_bar(None) as on_progress:
            return aligner.stream_align(stdin, transcript, on_progress=on_progress, **request.keywords())
    # A pipe given by name has no size and cannot be read whole for a guess.
    size = audio.stat().st_size if audio.is_file() else None
    if stream or size is None or size > aligner.server_info().limits.unary_audio_bytes:
        with progress.stream_bar(size) as on_progress:
            return aligner.stream_align(audio, transcript, on_progress=on_progress, **request.keywords())
    with progress.waiting(f"aligning {audio.name}"):
        return aligner.align(audio, transcript, **request.keywords())
