"""Uploads decoded while they come: as files are, however they are cut."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.audio.arriving.upload import NotEnoughError, open_live
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.decode_worker import decode
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers.pool import Reply
from tests.kit.recordings import samples, wav

SPEECH = samples()[: 2 * 16_000]


class InProcess(Decoder):
    """Its child is this process."""

    def __init__(self) -> None:
        super().__init__(DecodeSettings(workers=1), Limits())

    async def ask(self, pool, header, audio, client):
        answer, payload = decode(dict(header), memoryview(audio))
        return Reply(dict(answer), memoryview(payload).cast("B"), 0.0, 0.0)


async def decoded(data: bytes, cuts=(), encoding=Encoding.CONTAINER, rate=0, channels=0):
    """The samples, and the decoding."""
    decoding = await open_live(InProcess(), data, encoding, rate, channels)
    assert decoding is not None
    places = [0, *sorted(cuts), len(data)]
    pieces = [piece for start, end in pairwise(places) async for piece in decoding.add(data[start:end])]
    pieces += [piece async for piece in decoding.finish()]
    return np.concatenate(pieces), decoding


def header(form: tuple[int, int], rate: int, channels: int, claimed: int) -> bytes:
    tag, bits = form
    frame = channels * bits // 8
    return struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", claimed, b"WAVEfmt ", 16, tag, channels, rate, rate * frame, frame, bits, b"data", claimed
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2 * len(SPEECH)), max_size=12), st.sampled_from([16_000, 44_100, 11_025]))
async def test_where_an_upload_is_cut_does_not_matter(cuts, rate):
    data = SPEECH.tobytes()
    whole, _ = await decoded(data, (), Encoding.LINEAR16, rate)
    cut, _ = await decoded(data, cuts, Encoding.LINEAR16, rate)
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
async def test_it_is_what_the_whole_file_gives(rate):
    """Pieces that are resampled alone fit together to the last bit but one."""
    data = SPEECH.tobytes()
    live, _ = await decoded(data, range(0, len(data), 997), Encoding.LINEAR16, rate)
    reply, payload = decode({"encoding": "LINEAR16", "rate": rate, "channels": 1, "max_seconds": 60.0}, memoryview(data))
    whole = np.frombuffer(payload, np.int16)
    assert "refused" not in reply
    assert abs(len(live) - len(whole)) <= 1
    count = min(len(live), len(whole))
    assert np.abs(np.rint(live[:count] * 32768) - whole[:count])[:-40].max() <= 1


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF, 2 * len(SPEECH)])
async def test_a_wav_may_claim_any_length(claimed):
    live, decoding = await decoded(header((1, 16), 16_000, 1, claimed) + SPEECH.tobytes(), [50, 3000])
    np.testing.assert_array_equal(np.rint(live * 32768), SPEECH)
    assert decoding.warnings == ()


async def test_a_wav_that_claims_more_is_truncated_and_one_that_claims_less_goes_on():
    _, cut = await decoded(header((1, 16), 16_000, 1, 3 * len(SPEECH)) + SPEECH.tobytes())
    assert [warning.code for warning in cut.warnings] == ["AUDIO_TRUNCATED"]
    live, extended = await decoded(header((1, 16), 16_000, 1, len(SPEECH)) + SPEECH.tobytes())
    assert len(live) == len(SPEECH)
    assert [warning.code for warning in extended.warnings] == ["AUDIO_BEYOND_END"]


async def test_what_follows_the_samples_of_a_wav_is_no_sound():
    live, decoding = await decoded(wav(SPEECH) + b"LIST" + struct.pack("<I", 8000) + bytes(range(200)) * 40)
    assert len(live) == len(SPEECH)
    assert decoding.warnings == ()


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ((1, 8), ((SPEECH >> 8) + 128).astype(np.uint8)),
        ((1, 24), np.frombuffer((SPEECH.astype("<i4") << 16).tobytes(), np.uint8).reshape(-1, 4)[:, 1:]),
        ((1, 32), SPEECH.astype("<i4") << 16),
        ((3, 32), (SPEECH / 32768).astype("<f4")),
        ((3, 64), (SPEECH / 32768).astype("<f8")),
    ],
    ids=["8 bits", "24 bits", "32 bits", "float", "double"],
)
async def test_forms_of_samples(form, values):
    live, _ = await decoded(header(form, 16_000, 1, 0) + np.ascontiguousarray(values).tobytes())
    assert np.abs(live - SPEECH / 32768).max() <= (1 / 128 if form == (1, 8) else 1e-4)


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw"])
async def test_codes_of_telephones(codec):
    """Decoded as libav does."""
    tag = {"pcm_alaw": 6, "pcm_mulaw": 7}[codec]
    codes = bytes(range(256)) * 32
    live, _ = await decoded(header((tag, 8), 16_000, 1, len(codes)) + codes)
    _, payload = decode(
        {"encoding": "CONTAINER", "demuxer": "wav", "max_seconds": 5.0},
        memoryview(header((tag, 8), 16_000, 1, len(codes)) + codes),
    )
    np.testing.assert_array_equal(np.rint(live * 32768), np.frombuffer(payload, np.int16))


async def test_refusals():
    async def reason(data, *arguments):
        with pytest.raises(InvalidArgumentError) as refused:
            await decoded(data, (), *arguments)
        return refused.value.reason

    assert await reason(b"", Encoding.LINEAR16, 16_000) == "AUDIO_EMPTY"
    assert await reason(b"1234", Encoding.LINEAR16) == "SAMPLE_RATE_REQUIRED"
    assert await reason(wav(SPEECH), Encoding.LINEAR16, 16_000) == "ENCODING_MISMATCH"
    assert await reason(np.full(8000, np.nan, "<f4").tobytes(), Encoding.FLOAT32, 16_000) == "AUDIO_NOT_FINITE"
    archive = b"PK\x01\x02" + bytes(42) + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 46, 0, 0)
    assert await reason(SPEECH.tobytes() + archive, Encoding.LINEAR16, 16_000) == "ENCODING_MISMATCH"
    assert await reason(wav(SPEECH) + archive) == "AUDIO_POLYGLOT"


async def test_what_has_to_be_complete():
    decoder = InProcess()
    assert await open_live(decoder, b"caff\0\1\0\0" + bytes(100), Encoding.CONTAINER, long=True) is None
    assert await open_live(decoder, header((2, 4), 16_000, 1, 0) + bytes(100), Encoding.CONTAINER) is None  # ADPCM
    with pytest.raises(NotEnoughError):
        await open_live(decoder, wav(SPEECH)[:40], Encoding.CONTAINER)
    with pytest.raises(NotEnoughError):  # neither the index nor the samples of an MP4 are in sight
        await open_live(decoder, b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42" + b"\0\1\0\0free" * 9, Encoding.CONTAINER, long=True)
