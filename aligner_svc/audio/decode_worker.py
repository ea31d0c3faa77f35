"""The decoder child: `python -m aligner_svc.audio.decode_worker MEMORY_BYTES CPU_SECONDS`.

Everything that touches a caller's audio bytes beyond their magic number happens here, under
resource limits and in a process that can be killed. It answers samples and short codes, no text.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from aligner_svc.audio.container import Found, decode_container
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.headerless import decode_headerless
from aligner_svc.audio.refused import RefusedError
from aligner_svc.workers import Buffer, JsonValue, serve


def main(memory_bytes: int, cpu_seconds: int) -> None:
    """Serve decodes. Limits: address space above what is mapped now (bytes), processor time of one decode (s)."""
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump is a copy of somebody's recording
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def handle(header: dict[str, JsonValue], payload: memoryview) -> tuple[Mapping[str, JsonValue], Buffer]:
        limit_processor(cpu_seconds)
        return decode(header, payload)

    serve(handle)


def decode(header: dict[str, JsonValue], payload: memoryview) -> tuple[Mapping[str, JsonValue], Buffer]:
    """One call: `encoding`, `max_seconds`, and `demuxer` or `rate` and `channels`, to int16 samples or a refusal."""
    encoding, seconds = Encoding(header["encoding"]), header["max_seconds"]
    assert isinstance(seconds, int | float)
    found = Found()
    try:
        if encoding is Encoding.CONTAINER:
            samples, found = decode_container(payload, str(header["demuxer"]), seconds)
        else:
            rate, channels = header["rate"], header["channels"]
            assert isinstance(rate, int)
            assert isinstance(channels, int)
            samples = decode_headerless(payload, encoding, rate, channels, seconds)
    except RefusedError as refused:
        return {"refused": refused.code, "value": refused.value}, b""
    except MemoryError:  # a header that asked for more than the limit
        return {"refused": "AUDIO_UNREADABLE", "value": 0}, b""
    return {"damaged": found.damaged, "truncated": found.truncated}, samples.data.cast("B")


def limit_memory(more: int) -> None:
    """Cap the address space at what is mapped now plus `more` bytes, where the system tells what is mapped (Linux)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def limit_processor(seconds: int) -> None:
    """The next decode's share; the parent's timeout is first as a rule, this one also holds when the parent is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
