"""Whatever an upload holds, the decoder answers it in time, in little memory, and is there for the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import pytest_asyncio

import aligner_svc
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import InvalidArgumentError
from tests.hostile.corpus import CORPUS
from tests.hostile.good import FORMATS, good
from tests.hostile.hostile import ANY, DECODED, REFUSALS, Hostile
from tests.kit.peak_memory import peak_memory
from tests.kit.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

AWKWARD: Final = Path(aligner_svc.__file__).parents[2] / "shared" / "gold" / "awkward"
SECONDS: Final = 30.0
"""What a decode may take: a setting of the decoder, which ends it. They need less than two."""
LONGEST: Final = 60.0
"""Seconds of audio."""
PEAK: Final = 300 << 20
"""Bytes of memory of the decoder process, beside the upload itself."""

# libav sorts their tags in one go, with the square of their number, and asks for no bytes meanwhile.
STUBBORN: Final = frozenset({"flac: 100000 comments", "ogg: 100000 comments", "webm: 100000 tags"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    decoder = Decoder(DecodeSettings(workers=1, timeout=SECONDS), Limits(audio_seconds=LONGEST))
    await decoder.start()
    yield decoder
    await decoder.close()


async def outcome(decoder: Decoder, audio: bytes, encoding: Encoding = Encoding.CONTAINER) -> tuple[str, str]:
    """DECODED or the reason, and the message; anything but an answer or a refusal fails the test."""
    rate = 0 if encoding is Encoding.CONTAINER else 16_000
    await eventually(lambda: bool(decoder.pool.pids), "a decoder that was killed to come back")
    try:
        decoded = await decoder.decode(audio, encoding, rate)
    except InvalidArgumentError as refused:
        return refused.reason, refused.message
    assert decoded.clip.samples.dtype == np.int16
    assert decoded.clip.seconds <= LONGEST
    return DECODED, ""


async def check(decoder: Decoder, case: Hostile) -> None:
    audio = case.make()
    await eventually(lambda: bool(decoder.pool.pids), "a decoder that was killed to come back")
    pids, forgotten = decoder.pool.pids, forget_peak(decoder)
    found, message = await outcome(decoder, audio, case.encoding)
    assert found in case.outcomes, message
    assert case.says in message
    assert "in time" not in message
    assert decoder.pool.pids == pids, "no file costs a process"
    if forgotten:
        assert peak_memory(decoder.pool.pids[0]) < PEAK + len(audio)


def forget_peak(decoder: Decoder) -> bool:
    """Start measuring anew; not where the process is out of our reach."""
    with suppress(OSError):
        Path(f"/proc/{decoder.pool.pids[0]}/clear_refs").write_text("5")
        return True
    return False


@pytest.mark.parametrize(
    "name",
    sorted(CORPUS.keys() - STUBBORN),
)
async def test_a_hostile_file_gets_one_clear_answer(decoder: Decoder, name: str) -> None:
    await check(decoder, CORPUS[name])


@pytest.mark.parametrize("name", sorted(STUBBORN))
async def test_what_gets_nowhere_and_cannot_be_asked_costs_its_process(decoder: Decoder, name: str) -> None:
    found, message = await outcome(decoder, CORPUS[name].make())
    assert found == "AUDIO_UNREADABLE"
    assert "in time" not in message, "the kernel ended it, long before the decoder's time was over"
    assert (await outcome(decoder, good("au")))[0] == DECODED


@pytest.mark.parametrize("name", FORMATS)
async def test_a_file_cut_anywhere(decoder: Decoder, name: str) -> None:
    whole, pids = good(name), decoder.pool.pids
    found = set()
    for percent in (*range(1, 11), *range(15, 101, 5)):  # headers are at the beginning
        reason, message = await outcome(decoder, whole[: len(whole) * percent // 100])
        assert reason in {*ANY, "AUDIO_UNSUPPORTED"}, (percent, message)
        assert "in time" not in message
        found.add(reason)
    assert DECODED in found
    assert decoder.pool.pids == pids


@pytest.mark.parametrize("name", FORMATS)
async def test_a_file_with_broken_bytes(decoder: Decoder, name: str) -> None:
    """Some in the header, where lengths and counts are, and some anywhere."""
    whole, pids = good(name), decoder.pool.pids
    random = np.random.default_rng(FORMATS.index(name))
    for _ in range(25):
        broken = bytearray(whole)
        for at in (*random.integers(4, 400, random.integers(1, 6)), *random.integers(0, len(whole), random.integers(0, 6))):
            broken[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)])
        reason, message = await outcome(decoder, bytes(broken))
        assert reason in {*ANY, "AUDIO_UNSUPPORTED"}, message
        assert "in time" not in message
    assert decoder.pool.pids == pids


async def test_after_the_worst_of_them_the_next_recording_is_as_good_as_ever(decoder: Decoder) -> None:
    before = await decoder.decode(good("flac"), Encoding.CONTAINER)
    pids = decoder.pool.pids
    for name in ("mp4: stsz of 2^32 sizes", "ogg: 24 h of silence in 1.4 MB", "webm: a packet that inflates to 200 MB"):
        await outcome(decoder, CORPUS[name].make())
        after = await decoder.decode(good("flac"), Encoding.CONTAINER)
        assert (after.clip.samples == before.clip.samples).all()
        assert not after.warnings
    assert decoder.pool.pids == pids


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the collection of awkward recordings is not part of the repository")
async def test_awkward_recordings_from_elsewhere(decoder: Decoder) -> None:
    names = [path for path in sorted(AWKWARD.iterdir()) if path.suffix != ".json"]
    assert names
    for path in names:
        reason, message = await outcome(decoder, path.read_bytes())
        assert reason == DECODED or reason in REFUSALS, (path.name, message)
        assert "in time" not in message
        assert reason != "AUDIO_POLYGLOT", path.name
