"""Sniffing and decoding in this process, without its sandbox: nothing but refusals, samples in range, no crash of libav's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import atheris
import numpy as np

with atheris.instrument_imports(include=["aligner_svc.audio"]):
    from aligner_svc.audio.decode_worker import decode
    from aligner_svc.audio.encoding import Encoding
    from aligner_svc.audio.sniff import check_headerless, sniff

from aligner_svc.errors import InvalidArgumentError
from tests.fuzz.running import run
from tests.hostile.corpus import CORPUS
from tests.hostile.good import FORMATS, good
from tests.hostile.hostile import REFUSALS

SECONDS: Final = 5.0
ENCODINGS: Final = tuple(Encoding)
_SNIFFED: Final = frozenset({"AUDIO_EMPTY", "AUDIO_UNSUPPORTED", "AUDIO_POLYGLOT", "ENCODING_MISMATCH"})


def one(data: bytes) -> None:
    """The first byte says how the others are declared: mostly as a container, else by encoding, rate and channels."""
    choice, audio = (data[0] if data else 0), memoryview(bytearray(data[1:]))
    encoding = ENCODINGS[choice % 4] if choice & 0x40 else Encoding.CONTAINER
    try:
        if encoding is Encoding.CONTAINER:
            header = {"demuxer": sniff(audio)}
        else:
            check_headerless(audio, encoding)
            header = {"rate": (4000, 16_000, 44_100, 192_000)[choice >> 2 & 3], "channels": (choice >> 4 & 3) * 2 + 1}
    except InvalidArgumentError as error:
        refused = error.reason
    else:
        refused = ""
    if refused:
        assert refused in _SNIFFED
        return
    reply, payload = decode({"encoding": encoding.value, "max_seconds": SECONDS, **header}, audio)
    if "refused" in reply:
        assert reply["refused"] in REFUSALS
        return
    samples = np.frombuffer(payload, np.int16)
    assert 0 < len(samples) <= SECONDS * 16_000


def seeds() -> Iterator[bytes]:
    """The hostile corpus, and five seconds of speech in every format, cut to what an input may hold."""
    for case in CORPUS.values():
        yield bytes([0x40 | ENCODINGS.index(case.encoding)]) + case.make()[:60_000]
    for name in FORMATS:
        yield b"\0" + good(name)[:20_000]


if __name__ == "__main__":
    run(one, seeds)
