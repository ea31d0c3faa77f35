"""Audio that is not what was declared of it is never worked on."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.errors import DataLossError, Status
from aligner_svc.rpc.integrity import Arriving, Declared
from aligner_svc.workers import threads

AUDIO = bytes(range(256)) * 10
SHA256 = hashlib.sha256(AUDIO).digest()


async def arrive(declared: Declared, *pieces: bytes) -> None:
    arriving = Arriving(declared)
    for piece in pieces:
        await arriving.add(piece)
    arriving.finish()


async def refused(declared: Declared, *pieces: bytes) -> DataLossError:
    with pytest.raises(DataLossError) as caught:
        await arrive(declared, *pieces)
    assert caught.value.status is Status.DATA_LOSS
    assert [violation.field for violation in caught.value.violations] == ["audio"]
    return caught.value


@pytest.mark.parametrize(
    "declared", [Declared(), Declared(len(AUDIO)), Declared(sha256=SHA256), Declared(len(AUDIO), SHA256)], ids=str
)
async def test_what_was_declared(declared):
    await declared.check(AUDIO)
    await declared.check(bytearray(AUDIO))
    await declared.check(memoryview(AUDIO))
    await arrive(declared, AUDIO[:1], b"", AUDIO[1:1000], AUDIO[1000:])


async def test_nothing_declared_is_held_against_anything():
    await Declared().check(b"")


async def test_cut_short():
    error = await refused(Declared(len(AUDIO), SHA256), AUDIO[:-1])
    assert error.reason == "AUDIO_INCOMPLETE"
    assert "2559 of the 2560 bytes" in error.message
    assert (await refused(Declared(len(AUDIO)))).reason == "AUDIO_INCOMPLETE"


async def test_more_than_declared_is_refused_when_it_comes():
    arriving = Arriving(Declared(10))
    await arriving.add(bytes(10))
    with pytest.raises(DataLossError, match="more than the 10 bytes") as caught:
        await arriving.add(b"1")
    assert caught.value.reason == "AUDIO_SURPLUS"


@pytest.mark.parametrize("pieces", [(AUDIO[:-1],), (AUDIO, b"1"), (AUDIO[:-1] + b"1",), (AUDIO[1:], AUDIO[:1]), ()])
async def test_another_digest(pieces):
    assert (await refused(Declared(sha256=SHA256), *pieces)).reason == "AUDIO_DIGEST_MISMATCH"


async def test_a_digest_that_is_none():
    assert (await refused(Declared(sha256=SHA256[:31]), AUDIO)).reason == "AUDIO_DIGEST_MISMATCH"


@given(data=st.data(), threshold=st.integers(0, 40))
async def test_however_it_is_cut(data, threshold):
    """Hashed here or in a thread, in their order."""
    pieces = data.draw(st.lists(st.binary(max_size=50), max_size=8))
    whole = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_INLINE_BYTES", threshold)
        await arrive(Declared(len(whole), hashlib.sha256(whole).digest()), *pieces)
