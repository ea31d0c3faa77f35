"""NIST SPHERE: every sample format is read as its header says, and what is not read is refused by name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aligner_svc.audio.container import decode_container
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.headerless import decode_headerless
from aligner_svc.audio.sniff import sniff
from aligner_svc.audio.undecodable import UndecodableError
from aligner_svc.errors import InvalidArgumentError

SAMPLES = np.random.default_rng(4).integers(-20000, 20000, 16000).astype(np.int16)


def sphere(samples: bytes, *, length: int = 1024, **fields: str | int) -> bytes:
    """A file as corpora have it; `fields` replace those of 16-bit little-endian PCM, None leaves one out."""
    all_fields = {
        "database_id": "TIMIT",
        "channel_count": 1,
        "sample_count": len(SAMPLES),
        "sample_rate": 16000,
        "sample_n_bytes": 2,
        "sample_byte_format": "01",
    } | fields
    lines = [
        f"{name} -i {value}" if isinstance(value, int) else f"{name} -s{len(value)} {value}" for name, value in all_fields.items()
    ]
    return "\n".join(["NIST_1A", f"{length:7d}", *lines, "end_head", ""]).encode().ljust(length) + samples


def read(audio: bytes) -> npt.NDArray[np.int16]:
    assert sniff(audio) == "nistsphere"
    return decode_container(memoryview(audio), "nistsphere", 10.0)[0]


@pytest.mark.parametrize(
    "audio",
    [
        sphere(SAMPLES.tobytes()),
        sphere(SAMPLES.byteswap().tobytes(), sample_byte_format="10"),
        sphere(SAMPLES.tobytes(), sample_coding="pcm", length=2048),
        sphere(np.repeat(SAMPLES, 2).tobytes(), channel_count=2),
        sphere((SAMPLES.astype(np.int32) << 16).astype(">i4").tobytes(), sample_n_bytes=4, sample_byte_format="3210"),
        sphere(b"".join(int(s).to_bytes(3, "little", signed=True) for s in SAMPLES * 256.0), sample_n_bytes=3),
        sphere(SAMPLES.tobytes() + bytes(5000)),
        sphere(SAMPLES.tobytes(), sample_count=0),
        sphere(b"", sample_rate="rate").replace(b"-s4 rate", b"-r 16000.0")[:1024] + SAMPLES.tobytes(),
    ],
    ids=[
        "little-endian",
        "big-endian",
        "long header",
        "stereo",
        "32 bits",
        "24 bits",
        "more behind",
        "no count",
        "real rate",
    ],
)
def test_pcm_comes_out_as_it_went_in(audio: bytes) -> None:
    assert (read(audio) == SAMPLES).all()


@pytest.mark.parametrize("coding", ["ulaw", "mu-law", "ULAW"])
def test_mulaw(coding: str) -> None:
    codes = bytes(range(256)) * 60
    expected, _ = decode_headerless(memoryview(codes), Encoding.MULAW, 8000, 1, 10.0)
    audio = sphere(codes, sample_coding=coding, sample_n_bytes=1, sample_rate=8000, sample_count=len(codes))
    assert (read(audio) == expected).all()


def test_fewer_samples_than_declared_are_a_cut() -> None:
    samples, found = decode_container(memoryview(sphere(SAMPLES[:8000].tobytes())), "nistsphere", 10.0)
    assert (samples == SAMPLES[:8000]).all()
    assert found.truncated


@pytest.mark.parametrize(
    ("coding", "name"),
    [("pcm,embedded-shorten-v2.00", "Shorten"), ("ulaw,embedded-shorten-v2.00", "Shorten"), ("adpcm", "coding")],
)
def test_other_codings_are_refused_by_name(coding: str, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name) as caught:
        sniff(sphere(b"ajkg\2" + bytes(1000), sample_coding=coding))
    assert caught.value.reason == "AUDIO_UNSUPPORTED"


@pytest.mark.parametrize(
    ("audio", "code"),
    [
        (sphere(SAMPLES.tobytes(), channel_count=0), "CHANNELS_OUT_OF_RANGE"),
        (sphere(SAMPLES.tobytes(), channel_count=1024), "CHANNELS_OUT_OF_RANGE"),
        (sphere(SAMPLES.tobytes(), sample_rate=2_000_000_000), "SAMPLE_RATE_OUT_OF_RANGE"),
        (sphere(SAMPLES.tobytes(), sample_rate="fast"), "SAMPLE_RATE_OUT_OF_RANGE"),
        (sphere(b"", sample_count=0), "AUDIO_EMPTY"),
        (sphere(b""), "AUDIO_EMPTY"),
        (b"NIST_1A\n  99999999999\n" + bytes(4000), "AUDIO_UNREADABLE"),
        (b"NIST_1A\n", "AUDIO_UNREADABLE"),
    ],
)
def test_broken_headers(audio: bytes, code: str) -> None:
    with pytest.raises(UndecodableError) as caught:
        read(audio)
    assert caught.value.code == code
