"""A container that cannot be decoded before it is complete: an MP4 whose index is at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aligner_svc.audio.arriving.container import LiveContainer
from aligner_svc.audio.arriving.samples import Floats
from aligner_svc.audio.arriving.spool import Spool
from aligner_svc.audio.decode import Decoder
from aligner_svc.domain import Warning as AudioWarning
from aligner_svc.workers import Buffer, JsonValue

_BLOCK: Final = 256 * 1024
"""Bytes that the process gets at a time, from where it asks for them."""

SPOOLED: Final = AudioWarning(
    "AUDIO_INDEX_AT_END", "the file has its index at its end: no word could be sent before all of it had come"
)


class SpooledContainer(LiveContainer):
    """Kept in a temporary file, from which its process then reads. Memory: a block, and the samples of an answer."""

    on_disk = True

    def __init__(self, decoder: Decoder, demuxer: str) -> None:
        super().__init__(decoder, demuxer)
        self._spool = Spool(decoder.spool)
        self._at = 0

    def close(self) -> None:
        self._spool.close()
        super().close()

    async def _decode(self, chunk: Buffer, *, end: bool = False) -> AsyncIterator[Floats]:
        await self._spool.add(chunk)
        if not end:
            return
        await self._spool.flush()
        await self.begin()
        while self._process is not None:
            samples = await self._next()
            if len(samples):
                yield samples

    async def _next(self) -> Floats:
        """What the process decodes before it wants to read on."""
        header: dict[str, JsonValue] = {
            "demuxer": self.container,
            "max_seconds": self._decoder.max_seconds,
            "size": self._spool.size,
        }
        answer, samples = await self._exchange(header, self._spool.read(self._at, _BLOCK))
        at = answer.get("at")
        if answer.get("done") is True:
            self._finish(answer)
            self.warnings = (*self.warnings, SPOOLED)
        elif isinstance(at, int) and 0 <= at <= self._spool.size:
            self._at = at
        else:
            raise self._decoder.refusal("AUDIO_UNREADABLE")
        return samples
