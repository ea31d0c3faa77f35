"""The child that decodes one container while it arrives: `python -m ...arriving.container_worker HEADROOM_BYTES SANDBOX_MODE`.

libav reads the upload from `_Upload`, which answers the parent's call with what was decoded and waits for the next when it has
no more bytes: neither a thread nor the whole upload is needed. In the sandbox of decode_worker.py, for one upload, whose process
ends with it.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from aligner_svc.audio.container import Found
from aligner_svc.audio.decode_worker import warm_up
from aligner_svc.audio.headers.mpeg import skip_id3
from aligner_svc.audio.mixdown import Mixdown
from aligner_svc.audio.opening import decodable, open_container
from aligner_svc.audio.reader import Reader
from aligner_svc.audio.recordings import Recording
from aligner_svc.audio.source import STALL_TIMEOUT
from aligner_svc.audio.undecodable import UndecodableError
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.workers import Buffer, JsonValue, Sandbox, SandboxMode, Turn, converse
from aligner_svc.workers.sandbox import limit_memory

_MOST: Final = 30 * SAMPLE_RATE
"""Samples of one answer: a few bytes of Opus may hold minutes."""
_HEAD: Final = 4096
"""Bytes of a file whose header says how long it is."""
_CPU_LIMIT: Final = math.ceil(STALL_TIMEOUT) + 1
"""Processor seconds without progress that end the process."""


class _Upload:
    """The upload as a file that is read once. Waiting for it takes no processor time, so it is no stall."""

    def __init__(self, header: Mapping[str, JsonValue], first: memoryview, turn: Turn) -> None:
        self.ended = bool(header.get("end"))
        self.sink = _Pieces(cast("float", header["max_seconds"]), self)
        self._turn = turn
        self._data = bytearray(first)
        self._deadline = 0.0
        self._stalled = False
        self.progress()
        while len(self._data) < _HEAD and not self.ended:
            self._next(b"", more=False)
        self.head = bytes(self._data[:_HEAD])
        self._skip = skip_id3(memoryview(self.head))

    def read(self, size: int) -> bytes:
        self._stalled = self._stalled or time.process_time() > self._deadline
        if self._stalled:
            return b""
        while not self._data[self._skip :] and not self.ended:
            self._skip = max(0, self._skip - len(self._data))
            self._data.clear()
            self._next(self.sink.take(), more=False)
        piece = bytes(self._data[self._skip : self._skip + size])
        del self._data[: self._skip + len(piece)]
        self._skip = 0
        return piece

    def progress(self) -> None:
        """As AudioSource. libav may also be busy with bytes that it has, and never read: then the kernel ends the process."""
        self._deadline = time.process_time() + STALL_TIMEOUT
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(used.ru_utime + used.ru_stime) + _CPU_LIMIT
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))

    def check(self) -> None:
        if self._stalled:
            raise UndecodableError("AUDIO_UNREADABLE")

    def answer(self, samples: npt.NDArray[np.float32]) -> None:
        """Give some of what was decoded away, before more of the upload is asked for."""
        self._next(samples, more=True)

    def drain(self) -> None:
        """Read the rest without looking at it."""
        while not self.ended:
            self._data.clear()
            self._next(b"", more=False)

    def _next(self, samples: Buffer | npt.NDArray[np.float32], *, more: bool) -> None:
        header, data = self._turn({"more": more}, _bytes(samples))
        self.ended = self.ended or bool(header.get("end"))
        self._data += data
        self.progress()


class _File(_Upload):
    """An upload that is complete, and too long to be sent here at once: the parent is asked for the part that is read."""

    def __init__(self, header: Mapping[str, JsonValue], first: memoryview, turn: Turn) -> None:
        self._at = self._begin = 0
        self._size = cast("int", header["size"])
        super().__init__({**header, "end": True}, first, turn)

    def read(self, size: int) -> bytes:
        self._stalled = self._stalled or time.process_time() > self._deadline
        if self._stalled:
            return b""
        if self._at < self._size and not self._begin <= self._at < self._begin + len(self._data):
            self._next(self.sink.take(), more=False)
        piece = bytes(self._data[self._at - self._begin :][:size])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError("before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def _next(self, samples: Buffer | npt.NDArray[np.float32], *, more: bool) -> None:
        _, data = self._turn({"at": min(self._at, self._size)}, _bytes(samples))
        self._begin, self._data = self._at, bytearray(data)
        self.progress()


def _bytes(samples: Buffer | npt.NDArray[np.float32]) -> Buffer:
    return samples.data.cast("B") if isinstance(samples, np.ndarray) else samples


class _Pieces(Mixdown):
    """16 kHz mono, given away as it is decoded."""

    def __init__(self, max_seconds: float, upload: _Upload) -> None:
        super().__init__(0.0)
        self._left = int(max_seconds * SAMPLE_RATE)
        self._upload = upload
        self._ready: list[npt.NDArray[np.float32]] = []
        self._count = 0

    def silence(self, seconds: float) -> None:
        self._drain()
        left = round(seconds * SAMPLE_RATE)
        while left > 0:
            self._store(np.zeros(min(left, SAMPLE_RATE), np.float32))
            left -= SAMPLE_RATE

    def take(self) -> npt.NDArray[np.float32]:
        """What is ready."""
        self._mix()
        ready, self._ready, self._count = self._ready, [], 0
        return np.concatenate(ready) if ready else np.zeros(0, np.float32)

    def rest(self) -> npt.NDArray[np.float32]:
        """All that is left at the end."""
        self._drain()
        return self.take()

    def _store(self, mono: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(mono).all():
            raise UndecodableError("AUDIO_NOT_FINITE")
        self._left -= len(mono)
        if self._left < 0:
            raise UndecodableError("AUDIO_TOO_LONG")
        self._ready.append(np.clip(mono, -self.max_peak, self.max_peak).astype(np.float32))
        self._count += len(mono)
        if self._count >= _MOST:
            ready, self._ready, self._count = self._ready, [], 0
            self._upload.answer(np.concatenate(ready))


def decode(header: dict[str, JsonValue], payload: memoryview, turn: Turn) -> tuple[Mapping[str, JsonValue], Buffer]:
    """The last answer: `done`, with what was noticed, or `refused`. The first call has `demuxer` and `max_seconds`.

    Of a file that is complete also its `size`: then every answer but the last has where to read on, `at`.
    """
    demuxer, seconds = str(header["demuxer"]), cast("float", header["max_seconds"])
    upload = (_File if "size" in header else _Upload)(header, payload, turn)
    found = Found()
    refused: UndecodableError | None = None
    try:
        _read(upload, demuxer, seconds, found)
        rest = upload.sink.rest()
    except UndecodableError as error:
        refused = error
    except MemoryError:
        refused = UndecodableError("AUDIO_UNREADABLE")
    if refused is not None:
        return {"refused": refused.code, "value": refused.value}, b""
    upload.drain()
    return {"done": True, **asdict(found)}, rest.data.cast("B")


def _read(upload: _Upload, demuxer: str, seconds: float, found: Found) -> None:
    recording = Recording(memoryview(upload.head), demuxer)
    with open_container(upload, recording) as container:
        tracks = container.streams.audio
        order = sorted(range(len(tracks)), key=lambda index: not tracks[index].disposition & Disposition.default)
        chosen = next((index for index in order if decodable(tracks[index])), None)
        if chosen is None:
            raise UndecodableError("CODEC_UNSUPPORTED")
        reader = Reader(container, tracks[chosen], upload.sink, seconds, upload)
        reader.read()
        found.add(reader, recording, chosen + 1, len(tracks), seconds)


def main(headroom: int, mode: SandboxMode) -> None:
    """Decode one upload. `headroom`: bytes the process may map beyond what it has now."""
    warm_up()
    limit_memory(headroom)
    converse(decode, Sandbox(mode))


if __name__ == "__main__":
    main(int(sys.argv[1]), cast("SandboxMode", sys.argv[2]))
