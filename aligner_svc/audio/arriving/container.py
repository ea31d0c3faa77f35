"""A container that is decoded while it arrives: the parent's side of container_worker.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import numpy as np

from aligner_svc.audio.arriving.samples import TAIL, Floats
from aligner_svc.audio.decode import WARNINGS, Decoder, decoded_start, tracks_warning
from aligner_svc.audio.sniff import sniff
from aligner_svc.audio.sniff.appended import ends_as_zip
from aligner_svc.audio.sniff.containers import NAMES
from aligner_svc.domain import Warning as AudioWarning
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers import Buffer, JsonValue, WorkerFailedError
from aligner_svc.workers.process import GoneError, WorkerProcess

STREAMABLE: Final = frozenset({"aac", "flac", "matroska", "mov", "mp3", "ogg"})
"""Demuxers of files that are read from the beginning to the end, MP4 only if it does not have its index at the end."""
_MODULE: Final = "aligner_svc.audio.arriving.container_worker"
_START_TIMEOUT, _TIMEOUT = 30.0, 20.0
"""Seconds for a process to load, and for one answer; a message takes milliseconds."""
_MAX_REPLY: Final = 64 << 20
_HEAD: Final = 64 * 1024


class LiveContainer:
    """One upload, and the process that decodes it and nothing else."""

    on_disk = False

    def __init__(self, decoder: Decoder, demuxer: str) -> None:
        self.container = demuxer
        self.queued = self.busy = self.start = 0.0
        self.warnings: tuple[AudioWarning, ...] = ()
        self._decoder = decoder
        self._process: WorkerProcess | None = None
        self._head = self._tail = b""
        self._decoded = 0
        self._counted = True
        decoder.containers += 1

    async def begin(self) -> None:
        """Start the process. Raises UnavailableError."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._process = WorkerProcess(_MODULE, self._decoder.container_arguments, "decoder-live")
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._process.ready()
        except (GoneError, TimeoutError):
            self.close()
            raise self._decoder.lost() from None
        self.queued = clock() - began

    async def add(self, chunk: Buffer) -> AsyncIterator[Floats]:
        self._note(chunk)
        if len(chunk):
            async for samples in self._decode(chunk):
                yield samples

    async def finish(self) -> AsyncIterator[Floats]:
        self._check_whole()
        async for samples in self._decode(b"", end=True):
            yield samples
        self._check_samples()

    def close(self) -> None:
        self._stop()
        if self._counted:
            self._counted = False
            self._decoder.containers -= 1

    def _note(self, chunk: Buffer) -> None:
        """Keep what `_check_whole` looks at."""
        if len(self._head) < _HEAD:
            self._head += bytes(chunk[: _HEAD - len(self._head)])
        self._tail = (self._tail + bytes(chunk))[-TAIL:]

    def _check_whole(self) -> None:
        """Raises InvalidArgumentError for an upload that is something else, too."""
        sniff(self._head)
        if ends_as_zip(memoryview(self._tail)):
            message = f"this is {NAMES[self.container]} and a ZIP archive at once: send the audio alone"
            raise InvalidArgumentError("AUDIO_POLYGLOT", message, field="audio")

    def _check_samples(self) -> None:
        """Raises InvalidArgumentError if all of it was decoded, and nothing found."""
        if not self._decoded:
            damaged = any(warning in {WARNINGS["damaged"], WARNINGS["truncated"]} for warning in self.warnings)
            raise self._decoder.refusal("AUDIO_UNREADABLE" if damaged else "AUDIO_EMPTY")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._decoder.ending(process)

    async def _decode(self, chunk: Buffer, *, end: bool = False) -> AsyncIterator[Floats]:
        header: dict[str, JsonValue] = {"end": end, "demuxer": self.container, "max_seconds": self._decoder.max_seconds}
        more = True
        while more:
            answer, samples = await self._exchange(header, chunk)
            if answer.get("done") is True:
                self._finish(answer)
            more = self._process is not None and (answer.get("more") is True or end)
            chunk = b""
            if len(samples):
                yield samples

    def _finish(self, answer: Mapping[str, JsonValue]) -> None:
        self.warnings = (
            *(warning for key, warning in WARNINGS.items() if answer.get(key) is True),
            *tracks_warning(answer),
        )
        self.start = decoded_start(answer)
        self._stop()

    async def _exchange(self, header: Mapping[str, JsonValue], chunk: Buffer) -> tuple[Mapping[str, JsonValue], Floats]:
        """The process's answer and the samples in it. Raises InvalidArgumentError for a refusal, UnavailableError."""
        answer, payload = await self._ask(header, chunk)
        refused = answer.get("refused")
        if refused is not None or payload.nbytes % 4:
            raise self._decoder.refusal(refused, answer.get("value"))
        samples = np.frombuffer(payload, np.float32)
        if not np.isfinite(samples).all():  # a child's word is not taken for it
            raise self._decoder.refusal("AUDIO_NOT_FINITE")
        self._decoded += len(samples)
        return answer, samples

    async def _ask(self, header: Mapping[str, JsonValue], chunk: Buffer) -> tuple[Mapping[str, JsonValue], memoryview]:
        if self._process is None:
            raise self._decoder.refusal("AUDIO_UNREADABLE")
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._process.exchange(header, chunk, _MAX_REPLY)
        except (GoneError, WorkerFailedError, TimeoutError) as error:
            process = self._process
            lost = isinstance(error, GoneError) and await process.reap() and process.killed
            self.close()
            if lost:  # by an operator, or the kernel for lack of memory
                raise self._decoder.lost() from None
            raise self._decoder.refusal("AUDIO_UNREADABLE") from None
        finally:
            self.busy += clock() - began
