"""Samples without a header, decoded while they arrive.

Decoding runs in the child processes that decode files. Each piece is a call of its own, so that a recording holds no process
while its speaker is waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from aligner_svc.audio.arriving.forms import Form, grid
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.sniff import check_headerless, check_tail
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.domain import Warning as AudioWarning
from aligner_svc.workers import Buffer, JsonValue

HEAD: Final = 64
"""Bytes that show whether an upload is a WAV, or has a header that it should not have."""
TAIL: Final = 128 * 1024
"""Last bytes, in which the directory of an archive would be."""
_MOST_PIECES: Final = 100
"""Pieces of one call: 20 s of audio, so that live pieces do not wait behind long calls."""

Floats = npt.NDArray[np.float32]


class LiveDecoding(Protocol):
    """One recording: 16 kHz mono, 1.0 is full scale, in parts of half a minute at most, as a few bytes may hold hours.

    `add`, and `finish` once, give what can be decoded now. Both raise like `Decoder.decode`.
    """

    @property
    def container(self) -> str:
        """As in `Decoded`; so are the others."""

    @property
    def queued(self) -> float: ...

    @property
    def busy(self) -> float: ...

    @property
    def warnings(self) -> tuple[AudioWarning, ...]: ...

    @property
    def start(self) -> float: ...

    @property
    def on_disk(self) -> bool:
        """Whether the upload is in a file, rather than decoded as it comes."""

    def add(self, chunk: Buffer) -> AsyncIterator[Floats]:
        """More of the upload."""

    def finish(self) -> AsyncIterator[Floats]:
        """There is no more."""

    def close(self) -> None:
        """It is over, whatever came of it. Idempotent."""


class LiveSamples:
    """Samples of one form, without a header."""

    def __init__(self, decoder: Decoder, client: str, form: Form, encoding: Encoding | None = None) -> None:
        """`encoding`: what the caller says it is."""
        self.container = form.kind.lower()
        self.queued = self.busy = 0.0
        self.warnings: tuple[AudioWarning, ...] = ()
        self._decoder = decoder
        self._client = client
        self._form = form
        self._encoding = encoding
        self._width = form.frame
        self._grid = grid(form.rate)
        self._pending = bytearray()
        self._before = 0  # frames at the beginning of `_pending` that are context
        self._received = 0
        self._tail = b""
        self._decoded = 0

    start = 0.0
    on_disk = False

    def close(self) -> None: ...

    async def add(self, chunk: Buffer) -> AsyncIterator[Floats]:
        if self._received < HEAD and self._encoding is not None:
            self._received += len(chunk)
            self._tail += bytes(chunk)
            if self._received >= HEAD:
                check_headerless(self._tail, self._encoding)
        else:
            self._received += len(chunk)
            self._tail = (self._tail + bytes(chunk))[-TAIL:]
        async for samples in self.decode(chunk):
            yield samples

    async def finish(self) -> AsyncIterator[Floats]:
        if self._encoding is not None:
            if self._received < HEAD:
                check_headerless(self._tail, self._encoding)
            check_tail(self._tail, self._encoding)
        async for samples in self.decode(b"", last=True):
            yield samples
        if not self._decoded:
            raise self._decoder.refusal("AUDIO_EMPTY")

    async def decode(self, chunk: Buffer, *, last: bool = False) -> AsyncIterator[Floats]:
        """Whole pieces of the grid, and at the end all."""
        self._pending += chunk
        while True:
            frames = len(self._pending) // self._width
            ready = (frames - self._before - self._grid.context) // self._grid.piece
            take = min(ready, _MOST_PIECES) * self._grid.piece
            if take > 0:
                after = self._grid.context
            elif last and frames > self._before:
                take, after = frames - self._before, 0
            else:
                break
            samples = await self._ask(take, after)
            self._decoded += len(samples)
            if self._decoded > self._decoder.max_seconds * SAMPLE_RATE:
                raise self._decoder.refusal("AUDIO_TOO_LONG")
            yield samples

    async def _ask(self, take: int, after: int) -> Floats:
        with memoryview(self._pending) as view:
            data = bytes(view[: (self._before + take + after) * self._width])
        header: dict[str, JsonValue] = {
            "form": asdict(self._form),
            "before": self._before,
            "after": after,
        }
        reply = await self._decoder.ask(self._decoder.pool, header, data, self._client)
        self.queued += reply.queued
        self.busy += reply.busy
        refused = reply.header.get("refused")
        if refused is not None or reply.payload.nbytes % 4:
            raise self._decoder.refusal(refused, reply.header.get("value"))
        kept = min(self._grid.context, self._before + take)
        del self._pending[: (self._before + take - kept) * self._width]
        self._before = kept
        samples = np.frombuffer(reply.payload, np.float32)
        if not np.isfinite(samples).all():  # a child's word is not taken for it
            raise self._decoder.refusal("AUDIO_NOT_FINITE")
        return samples
