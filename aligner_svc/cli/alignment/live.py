"""`aligner align --live`: a file played at the pace of speech, or stdin as it comes, with each word as it is found."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.text import Text

from aligner_client import Aligner, AlignerClientError
from aligner_svc.cli.alignment.request import HeaderlessEncoding, Request
from aligner_svc.cli.alignment.sound import decoded
from aligner_svc.cli.failures import from_client, warn
from aligner_svc.cli.interrupt import exit_on_interrupt
from aligner_svc.cli.tables import printable
from aligner_svc.domain import SAMPLE_RATE, Word, WordStatus

_CHUNK_SECONDS = 0.1
"""Audio of a message."""
_SURE, _LIKELY = 0.8, 0.5
"""Confidences from which a word is green, and yellow."""
_BYTES = {HeaderlessEncoding.LINEAR16: 2, HeaderlessEncoding.FLOAT32: 4, HeaderlessEncoding.MULAW: 1}


def run(audio: Path | None, request: Request, transcript: str) -> None:
    """Print a line for each word when it comes: start and end in seconds, and the word. Raises Failure, OSError."""
    console = Console(highlight=False, soft_wrap=True)
    name = "stdin" if audio is None else str(audio)
    keywords = request.keywords()
    chunks: BinaryIO | Iterator[bytes]
    if audio is None:
        chunks = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    elif request.encoding is not None:
        chunks = _paced(_file(audio, request))
    else:
        from aligner_client import AudioEncoding

        chunks = _paced(decoded(audio, _CHUNK_SECONDS))
        keywords |= {"encoding": AudioEncoding.LINEAR16, "sample_rate_hz": SAMPLE_RATE, "channels": 1, "audio_track": 0}
    try:
        with exit_on_interrupt(), request.connection.open() as aligner:
            _print(console, aligner, chunks, transcript, keywords)
    except AlignerClientError as error:
        raise from_client(error, f"{name} could not be aligned", request.connection.target) from error


def _print(
    console: Console, aligner: Aligner, chunks: BinaryIO | Iterator[bytes], transcript: str, keywords: dict[str, object]
) -> None:
    with aligner.stream_words(chunks, transcript, **keywords) as words:  # type: ignore[arg-type]
        for word in words:
            console.print(_line(word))
        for warning in words.alignment().warnings:
            warn(printable(f"{warning.message} ({warning.code})").plain)


def _line(word: Word) -> Text:
    colour = "green" if word.confidence >= _SURE else "yellow" if word.confidence >= _LIKELY else "red"
    if word.status is WordStatus.SKIPPED:
        colour = "dim"
    times = f"{word.start:9.3f} {word.end:9.3f}  "
    text = Text.assemble((times, "dim"), (printable(word.text).plain, colour))
    return text if word.status is not WordStatus.NOT_FOUND else text.append(" (not found)", "dim")


def _paced(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Each when as much has been played."""
    began = time.monotonic()
    for number, chunk in enumerate(chunks, 1):
        time.sleep(max(0.0, began + number * _CHUNK_SECONDS - time.monotonic()))
        yield chunk


def _file(path: Path, request: Request) -> Iterator[bytes]:
    """Samples without a header."""
    assert request.encoding is not None
    size = round(_CHUNK_SECONDS * request.sample_rate_hz) * _BYTES[request.encoding] * max(1, request.channels)
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk
