"""The sound of a file of the caller: decoded, and for a page with its waveform."""

from __future__ import annotations

import mimetypes
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aligner_svc.cli.failures import Failure
from aligner_svc.domain import SAMPLE_RATE

if TYPE_CHECKING:
    from aligner_client.formats.page import Sound

_PEAKS_A_SECOND = 50
_AT_ONCE = 60.0
"""Seconds of audio that are decoded at a time."""
_CONTAINED_BYTES = 32 << 20
"""Of a file that is put into the page: a browser takes a second for so much. A larger one stays beside it."""


def decoded(path: Path, seconds: float) -> Iterator[bytes]:
    """Any recording as headerless 16-bit samples, so many seconds a piece, decoded here: it is the caller's own file.

    Raises Failure.
    """
    import av
    import av.error

    size = round(seconds * SAMPLE_RATE) * 2
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    pending = bytearray()
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise Failure(f"{path} has no audio")
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    pending += bytes(part.planes[0])[: part.samples * 2]
                while len(pending) >= size:
                    yield bytes(pending[:size])
                    del pending[:size]
    except av.error.FFmpegError as error:
        raise Failure(f"{path} could not be decoded: {error.strerror}") from None
    yield bytes(pending)


def sound(audio: Path, out: Path | None) -> Sound:
    """For a page that is written to `out`. Raises Failure, OSError."""
    import numpy as np

    from aligner_client.formats.page import Sound

    step = SAMPLE_RATE // _PEAKS_A_SECOND
    peaks: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    for piece in decoded(audio, _AT_ONCE):
        loud = np.abs(np.frombuffer(piece, np.int16).astype(np.int32))
        loud = np.pad(loud, (0, -len(loud) % step))
        peaks.append(loud.reshape(-1, step).max(axis=1))
    found = np.concatenate(peaks)
    scaled = (found * 255 // max(1, int(found.max(initial=0)))).astype(np.uint8).tobytes()
    return Sound(scaled, _source(audio, out))


def _source(audio: Path, out: Path | None) -> str:
    if audio.stat().st_size > _CONTAINED_BYTES:
        return quote(os.path.relpath(audio, Path.cwd() if out is None else out.resolve().parent))
    kind = mimetypes.guess_type(audio.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{b64encode(audio.read_bytes()).decode()}"
