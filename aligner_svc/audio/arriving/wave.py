"""A WAV, decoded while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aligner_svc.audio.arriving.forms import WaveStart
from aligner_svc.audio.arriving.samples import TAIL, Floats, LiveSamples
from aligner_svc.audio.decode import WARNINGS, Decoder
from aligner_svc.audio.headers.wave import is_placeholder
from aligner_svc.audio.sniff import sniff
from aligner_svc.audio.sniff.appended import ends_as_zip
from aligner_svc.audio.sniff.foreign import certain
from aligner_svc.domain import Warning as AudioWarning
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers import Buffer

_BEHIND: Final = 4096
"""Bytes behind the samples by which it is judged what they are."""
_MISSING: Final = 0.1
"""Seconds by which a header may be wrong."""


class LiveWave:
    """A WAV, whose header may claim any length: what it claims ends the samples only if something else follows."""

    def __init__(self, decoder: Decoder, client: str, start: WaveStart) -> None:
        self.container = "wav"
        self._decoder = decoder
        self._skip = start.start
        self._samples = LiveSamples(decoder, client, start.form)
        self._second = start.form.rate * start.form.frame
        placeholder = not start.claimed or is_placeholder(start.claimed) or start.claimed > decoder.max_seconds * self._second
        self._left: int | None = None if placeholder else start.claimed  # None: up to the end
        self._odd = start.claimed & 1
        self._behind: bytearray | None = None
        self._ignored = False
        self._head = b""
        self._tail = b""
        self._extended = False

    @property
    def queued(self) -> float:
        return self._samples.queued

    @property
    def busy(self) -> float:
        return self._samples.busy

    start = 0.0
    on_disk = False

    def close(self) -> None: ...

    @property
    def warnings(self) -> tuple[AudioWarning, ...]:
        missing = self._left is not None and self._left > _MISSING * self._second
        return tuple(WARNINGS[key] for key, holds in (("truncated", missing), ("extended", self._extended)) if holds)

    async def add(self, chunk: Buffer) -> AsyncIterator[Floats]:
        if len(self._head) < _BEHIND:
            self._head = (self._head + bytes(chunk))[:_BEHIND]
        self._tail = (self._tail + bytes(chunk))[-TAIL:]
        if self._ignored:
            return
        view = memoryview(chunk)[min(self._skip, len(chunk)) :]
        self._skip -= min(self._skip, len(chunk))
        samples = view
        if self._left is not None:
            samples = view[: self._left]
            self._left -= samples.nbytes
        rest = view[samples.nbytes :]
        if samples.nbytes:
            async for piece in self._samples.decode(bytes(samples)):
                yield piece
        if rest.nbytes:
            self._behind = (self._behind or bytearray()) + rest
            if len(self._behind) >= _BEHIND:
                async for piece in self._judge():
                    yield piece

    async def finish(self) -> AsyncIterator[Floats]:
        sniff(self._head)
        if ends_as_zip(memoryview(self._tail)):
            raise _polyglot("a ZIP archive")
        if self._behind is not None and not self._ignored:
            async for piece in self._judge():
                yield piece
        async for piece in self._samples.finish():
            yield piece

    async def _judge(self) -> AsyncIterator[Floats]:
        """What is behind the declared end: chunks are ignored, another file is refused, samples are decoded."""
        assert self._behind is not None
        behind, self._behind = bytes(self._behind), None
        name = certain(behind.lstrip(b"\0"))
        if name and behind[:4] not in {b"RIFF", b"RF64", b"BW64"}:
            raise _polyglot(name)
        padded = behind[self._odd :]
        if len(behind) <= _MISSING * self._second or not any(behind) or _is_chunk(behind) or _is_chunk(padded):
            self._ignored = True
            return
        self._left, self._extended = None, True
        async for piece in self._samples.decode(behind):
            yield piece


def _polyglot(name: str) -> InvalidArgumentError:
    return InvalidArgumentError("AUDIO_POLYGLOT", f"this is a WAV file and {name} at once: send the audio alone", field="audio")


def _is_chunk(data: bytes) -> bool:
    """Whether it begins like a chunk of RIFF, or with tags that players append."""
    return data.startswith((b"ID3", b"TAG", b"APETAGEX")) or (len(data) >= 8 and all(32 <= c < 127 for c in data[:4]))
