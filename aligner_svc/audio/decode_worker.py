"""The decoder child: `python -m aligner_svc.audio.decode_worker HEADROOM_BYTES CPU_SECONDS SANDBOX_MODE [PRIORITY]`.

All processing of a client's audio bytes, except sniffing, happens here: in a process that can be killed, with
resource limits, and in a sandbox that is closed before the first byte is read. It replies with samples and
short codes, never with text.
"""

from __future__ import annotations

import math
import resource
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

# av imports these for the first file with subtitles, when the sandbox no longer lets it open files.
import av.subtitles.codeccontext
import av.subtitles.stream  # noqa: F401

from aligner_svc.audio.arriving.forms import Form
from aligner_svc.audio.arriving.pieces import decode_pieces, wave_start
from aligner_svc.audio.container import Found, decode_container
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.headerless import decode_headerless
from aligner_svc.audio.longest import longest_seconds
from aligner_svc.audio.source import STALL_TIMEOUT, Watch
from aligner_svc.audio.undecodable import SHORTER, UNFINISHED, UndecodableError
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.workers import Buffer, JsonValue, Priority, Sandbox, SandboxMode, serve
from aligner_svc.workers.sandbox import limit_memory

_WORKING_MEMORY: Final = 192 << 20
"""Bytes of address space a decode may use besides its input and output; an ordinary one needs a few MB."""

_CPU_BASE, _CPU_PER_MIB = 10, 10
"""Processor seconds for a decode, and per MiB of it: five times what Opus at 6 kbit/s, the densest, takes on a slow core."""

_STALL_LIMIT: Final = STALL_TIMEOUT + 0.25
"""Processor seconds without progress that end the process; up to one more, as the kernel counts whole seconds."""

_PIECES_SECONDS: Final = 60.0
"""Seconds of audio that one call for pieces is allowed memory for."""

_RLIMIT_CLOCK: Final = -8
"""The kernel's MAKE_PROCESS_CPUCLOCK(0, CPUCLOCK_PROF), which RLIMIT_CPU is compared with. It counts ticks, and on a busy machine
is seconds ahead of or behind `time.process_time`: limits set by that one ended decodes that made progress."""


def _cpu_seconds() -> float:
    return time.clock_gettime(_RLIMIT_CLOCK) if sys.platform == "linux" else time.process_time()


@dataclass(slots=True)
class DecodeBudget(Watch):
    """Soft resource limits for one decode at a time; hard ones hold for the process.

    `mapped`: bytes of address space before the first decode, 0 if unknown. `headroom`: bytes beyond it that the
    process may map. `cpu_seconds`: processor seconds no decode may exceed, however large its file.
    """

    mapped: int
    headroom: int
    cpu_seconds: int
    _deadline: int = 0
    """The process's own processor time (s) at which it is ended."""
    _until: float = math.inf
    """The same, at which the decode is given up as unfinished."""

    def open(self, payload_bytes: int, max_seconds: float, slice_seconds: float = math.inf) -> None:
        """Set the limits of a decode whose input is mapped already.

        After `slice_seconds` of processor time, reporting progress raises UndecodableError (UNFINISHED).
        """
        self._until = time.process_time() + slice_seconds
        output = math.ceil(max_seconds * SAMPLE_RATE) * 2
        self._limit_memory(payload_bytes + output + _WORKING_MEMORY)
        # The parent's timeout usually comes first; this one is smaller for small files, and holds without the parent.
        allowance = min(self.cpu_seconds, _CPU_BASE + _CPU_PER_MIB * math.ceil(payload_bytes / (1 << 20)))
        self._deadline = int(_cpu_seconds()) + 1 + allowance
        self.rest()

    def progress(self) -> None:
        """End the process after _STALL_LIMIT: libav may also be busy with bytes that it has, and never call `AudioSource`."""
        if time.process_time() > self._until:
            raise UndecodableError(UNFINISHED)
        stalled = math.ceil(_cpu_seconds() + _STALL_LIMIT)
        resource.setrlimit(resource.RLIMIT_CPU, (min(self._deadline, stalled), resource.RLIM_INFINITY))

    def rest(self) -> None:
        """Allow all of the remaining processor time."""
        resource.setrlimit(resource.RLIMIT_CPU, (self._deadline, resource.RLIM_INFINITY))

    def close(self) -> None:
        """After a decode: make room for the next input, however large."""
        self.rest()
        self._limit_memory(self.headroom)

    def _limit_memory(self, more: int) -> None:
        if self.mapped:
            hard = self.mapped + self.headroom
            resource.setrlimit(resource.RLIMIT_AS, (min(self.mapped + more, hard), hard))


def main(headroom: int, cpu_seconds: int, mode: SandboxMode, priority: Priority = "normal") -> None:
    """Serve decodes. `headroom`: bytes the process may map beyond what it has now; `cpu_seconds`: maximum for one decode."""
    warm_up()
    budget = DecodeBudget(limit_memory(headroom), headroom, cpu_seconds)

    def handle(header: dict[str, JsonValue], payload: memoryview) -> tuple[Mapping[str, JsonValue], Buffer]:
        slice_seconds = cast("float", header.get("cpu_seconds", math.inf))
        budget.open(payload.nbytes, cast("float", header.get("max_seconds", _PIECES_SECONDS)), slice_seconds)
        try:
            return decode(header, payload, budget)
        finally:
            budget.close()

    serve(handle, Sandbox(mode), priority)


def warm_up() -> None:
    """Decode a little, so that what is loaded on first use is loaded while files can still be opened."""
    samples = bytes(4 * 4410)
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVEfmt ", 16, 1, 2, 44100, 176400, 4, 16, b"data", len(samples)
    )
    decode({"encoding": "CONTAINER", "demuxer": "wav", "max_seconds": 1.0}, memoryview(head + samples))
    decode({"encoding": "CONTAINER", "demuxer": "flac", "max_seconds": 1.0}, memoryview(samples))
    decode({"encoding": "MULAW", "rate": 8000, "channels": 1, "max_seconds": 1.0}, memoryview(samples[:4000]))


def decode(
    header: dict[str, JsonValue], payload: memoryview, watch: Watch | None = None
) -> tuple[Mapping[str, JsonValue], Buffer]:
    """Answer a call: `encoding`, `max_seconds`, and `demuxer` and `track`, or `rate` and `channels`, with samples or a refusal.

    `channel`: the only one to decode, where given.

    Or `form`, `before` and `after`, with a piece (pieces.py); `wave`, with where the samples of a WAV begin.

    `cpu_seconds`, where given, is enforced by `watch`. `least_seconds`: a container that is certainly shorter is not decoded.
    """
    if "encoding" not in header:
        return _piece(header, payload)
    encoding, seconds = Encoding(header["encoding"]), header["max_seconds"]
    assert isinstance(seconds, int | float)
    channel = cast("int | None", header.get("channel"))
    found = Found()
    try:
        if encoding is Encoding.CONTAINER:
            least = cast("float", header.get("least_seconds", 0.0))
            if least and (longest := longest_seconds(payload, str(header["demuxer"]), least, watch)) < least:
                return {"refused": SHORTER, "value": math.floor(longest * 1000)}, b""
            track = cast("int", header.get("track", 0))
            samples, found = decode_container(payload, str(header["demuxer"]), seconds, watch, track, channel=channel)
        else:
            rate, channels = header["rate"], header["channels"]
            assert isinstance(rate, int)
            assert isinstance(channels, int)
            samples, found.peak = decode_headerless(payload, encoding, rate, channels, seconds, channel=channel, watch=watch)
    except UndecodableError as refused:
        return {"refused": refused.code, "value": refused.value}, b""
    except MemoryError:  # a header that claims more than the limit
        return {"refused": "AUDIO_UNREADABLE", "value": 0}, b""
    return asdict(found), samples.data.cast("B")


def _piece(header: dict[str, JsonValue], payload: memoryview) -> tuple[Mapping[str, JsonValue], Buffer]:
    try:
        if "wave" in header:
            start = wave_start(payload)
            return (asdict(start) if start else {"more": True}), b""
        form = Form(**cast("dict[str, Any]", header["form"]))
        return {}, decode_pieces(payload, form, cast("int", header["before"]), cast("int", header["after"])).data.cast("B")
    except UndecodableError as refused:
        return {"refused": refused.code, "value": refused.value}, b""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), cast("SandboxMode", sys.argv[3]), cast("Priority", (*sys.argv[4:], "normal")[0]))
