"""Hostile files: a limit stops each with a reason of its own, in little memory, and the next file is decoded."""

from __future__ import annotations

import io
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

from aligner_svc.audio import reader
from aligner_svc.audio.container import decode_container
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.headers.mpeg import skip_id3
from aligner_svc.audio.headers.wave import read_wave_header
from aligner_svc.audio.undecodable import UndecodableError
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers import WorkerDiedError
from aligner_svc.workers.pool import WorkerPool
from tests.aligner_svc.audio.test_decode import bursts, encode, wav
from tests.kit.peak_memory import peak_memory

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 3600.0
MAX_MEMORY = 300 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    decoder = Decoder(DecodeSettings(workers=1), Limits(audio_seconds=LIMIT))
    await decoder.start()
    yield decoder
    await decoder.close()


async def reason(decoder: Decoder, audio: bytes, encoding: Encoding = Encoding.CONTAINER) -> tuple[str, str]:
    """Reason and message of the refusal."""
    with pytest.raises(InvalidArgumentError) as caught:
        await decoder.decode(audio, encoding)
    return caught.value.reason or "", caught.value.message


def childs_peak(decoder: Decoder) -> int:
    """Peak memory (bytes) of the larger of its two children."""
    return max(peak_memory(pid) for pool in decoder.pools for pid in pool.pids)


def matroska(streams: int = 1, tags: dict[str, str] | None = None, extras: bool = False) -> bytes:
    """A second of sound on each of `streams`; `extras`: a subtitle track as well."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        container.metadata.update(tags or {})
        sounds = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(streams)]
        if extras:
            template = av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\nwords\n\n"), format="srt")
            subtitles = container.add_stream_from_template(template.streams.subtitles[0])
            for packet in template.demux():
                if packet.dts is not None:
                    packet.stream = subtitles
                    container.mux(packet)
        for sound in sounds:
            frame = av.AudioFrame.from_ndarray(np.ones((1, 16000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return file.getvalue()


class TestCounts:
    async def test_streams(self, decoder: Decoder) -> None:
        code, message = await reason(decoder, matroska(33))
        assert code == "AUDIO_TOO_MANY_STREAMS"
        assert "33 streams" in message
        assert (await decoder.decode(matroska(32), Encoding.CONTAINER)).clip.seconds == 1
        code, _ = await reason(decoder, matroska(100))
        assert code in {"AUDIO_TOO_MANY_STREAMS", "AUDIO_UNREADABLE"}

    async def test_tags(self, decoder: Decoder) -> None:
        code, message = await reason(decoder, matroska(tags={"comment": "x" * (1 << 20)}))
        assert code == "AUDIO_METADATA_TOO_LARGE"
        assert "1048576 characters" in message
        assert (await decoder.decode(matroska(tags={"comment": "x" * 1_000_000}), Encoding.CONTAINER)).clip.seconds == 1

    async def test_a_film_with_subtitles_is_not_refused(self, decoder: Decoder) -> None:
        """All that it takes is imported before the sandbox forbids opening files."""
        assert (await decoder.decode(matroska(extras=True), Encoding.CONTAINER)).clip.seconds == 1

    async def test_packets_without_samples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        audio = bytearray(encode(bursts(44100, 4.0), 44100, "matroska", "flac"))
        for at in range(len(audio) // 10, len(audio) - len(audio) // 10, 97):
            audio[at] ^= 0xFF
        decode_container(memoryview(audio), "matroska", LIMIT)
        monkeypatch.setattr(reader, "_MAX_IDLE", 5)
        with pytest.raises(UndecodableError, match="AUDIO_UNREADABLE"):
            decode_container(memoryview(audio), "matroska", LIMIT)

    async def test_all_packets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        audio = memoryview(encode(bursts(44100, 4.0), 44100, "mp3", "libmp3lame"))  # 155 packets and frames
        monkeypatch.setattr(reader, "_MAX_IDLE", 3)
        monkeypatch.setattr(reader, "_STEPS_PER_SECOND", 50)
        decode_container(audio, "mp3", 4.5)
        monkeypatch.setattr(reader, "_STEPS_PER_SECOND", 20)
        with pytest.raises(UndecodableError, match="AUDIO_TOO_MANY_PACKETS"):
            decode_container(audio, "mp3", 4.5)

    async def test_empty_chunks_of_a_wav_and_empty_tags_are_skipped_up_to_a_limit(self) -> None:
        audio = wav(np.zeros(100, np.int16))
        assert read_wave_header(memoryview(audio[:12] + b"junk\0\0\0\0" * 900 + audio[12:]))
        assert read_wave_header(memoryview(audio[:12] + b"junk\0\0\0\0" * 1000 + audio[12:])) is None
        assert skip_id3(memoryview(b"ID3\x04\0\0\0\0\0\0" * 100)) == 150

    async def test_samples_whose_sum_is_infinite(self, decoder: Decoder) -> None:
        loud = np.tile(np.repeat(np.array([3.4e38, -3.4e38], np.float32), 50), 441)  # the filter rings
        assert (await reason(decoder, wav(loud, 44100)))[0] == "AUDIO_NOT_FINITE"


class TestMemory:
    async def test_an_hour_of_silence_in_a_small_file(self, decoder: Decoder) -> None:
        audio = encode(np.zeros(8000 * 3600, np.float32), 8000, "flac", "flac")
        assert len(audio) < 1 << 20
        assert (await decoder.decode(audio, Encoding.CONTAINER)).clip.seconds == 3600
        assert childs_peak(decoder) < 120 << 20  # the samples alone are 115 MB, and the libraries 60

    async def test_a_table_for_millions_of_samples_that_are_not_there(self, decoder: Decoder) -> None:
        audio = bytearray(encode(bursts(44100), 44100, "mp4", "aac"))
        for count in (1 << 20, 1 << 23, 1 << 26, 0x7FFFFFFF, 0xFFFFFFFF):
            at = audio.index(b"stsz")
            audio[at + 8 : at + 16] = struct.pack(">II", 1, count)  # all of one byte
            at = audio.index(b"stts")
            audio[at + 8 : at + 16] = struct.pack(">II", 1, count)
            code, _ = await reason(decoder, bytes(audio)) if count > 1 << 24 else ("", "")
            assert code in {"AUDIO_UNREADABLE", "AUDIO_EMPTY", ""}
        assert childs_peak(decoder) < MAX_MEMORY

    @pytest.mark.parametrize("size", [1 << 24, (1 << 28) - 1])
    async def test_a_tag_that_claims_hundreds_of_megabytes(self, decoder: Decoder, size: int) -> None:
        sizes = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
        frame = b"COMM" + sizes + b"\0\0" + b"\0eng\0"
        await reason(decoder, b"ID3\x04\0\0" + sizes + frame + b"x" * 100_000)
        assert childs_peak(decoder) < MAX_MEMORY

    async def test_random_bytes_after_every_header(self, decoder: Decoder) -> None:
        """Bytes changed at random in each container: an answer or a refusal, in little memory, by the same child."""
        random = np.random.default_rng(7)
        for muxer, codec in [
            ("mp4", "aac"),
            ("matroska", "libopus"),
            ("ogg", "flac"),
            ("flac", "flac"),
            ("asf", "wmav2"),
            ("caf", "alac"),
        ]:
            whole = np.frombuffer(encode(bursts(48000, 1.0), 48000, muxer, codec), np.uint8)
            for _ in range(15):
                audio = whole.copy()
                audio[random.integers(16, len(audio), 40)] = random.integers(0, 256, 40)
                audio[random.integers(16, 1000, 8)] = random.integers(0, 256, 8)
                try:
                    await decoder.decode(audio.tobytes(), Encoding.CONTAINER)
                except InvalidArgumentError as refused:
                    assert refused.reason  # noqa: PT017 - any of them
        assert childs_peak(decoder) < MAX_MEMORY

    async def test_no_child_was_replaced(self, decoder: Decoder) -> None:
        assert decoder.pool.restarts == 0
        assert (await decoder.decode(wav(np.ones(16000, np.int16)), Encoding.CONTAINER)).clip.seconds == 1


HARMFUL = """
import sys
from aligner_svc.audio import decode_worker

honest = decode_worker.decode


def decode(header, payload, watch):
    if header["encoding"] != "MULAW":
        return honest(header, payload, watch)
    if payload[0] == 1:
        while True:
            pass
    if payload[0] == 2:
        bytearray(200 << 20)
    if payload[0] == 3:
        import ctypes
        ctypes.string_at(0)
    return {}, bytes(2)


headroom, mode = int(sys.argv[1]), sys.argv[3]
decode_worker.warm_up()
decode_worker.decode = decode
decode_worker.warm_up = lambda: None
import ctypes
decode_worker._WORKING_MEMORY = 32 << 20
decode_worker._CPU_BASE, decode_worker._CPU_PER_MIB = 0, 1
decode_worker.main(headroom, 120, mode)
"""


class TestHarm:
    """A decoder that misbehaves as if a file had taken it over."""

    @pytest_asyncio.fixture(loop_scope="module")
    async def harmed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Decoder]:
        (tmp_path / "harmful.py").write_text(HARMFUL)
        monkeypatch.syspath_prepend(tmp_path)
        decoder = Decoder(DecodeSettings(workers=1), Limits(audio_seconds=LIMIT))
        decoder.pool = WorkerPool("harmful", 1, args=(str(1 << 30), "120", "best-effort"), name="harmful")
        decoder.long_pool = WorkerPool("harmful", 1, args=(str(1 << 30), "120", "best-effort"), name="harmful-long")
        await decoder.start()
        yield decoder
        await decoder.close()

    @pytest.mark.parametrize(("byte", "died_of"), [(1, signal.SIGXCPU), (3, signal.SIGSEGV)])
    async def test_a_decoder_that_dies_fails_only_its_own_call(
        self, harmed: Decoder, byte: int, died_of: signal.Signals, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            await harmed.decode(bytes([byte] * 800), Encoding.MULAW, 8000)
        assert (caught.value.reason, caught.value.violations[0].field) == ("AUDIO_UNREADABLE", "audio")
        assert harmed.pool.restarts == 1
        assert (await harmed.decode(wav(np.ones(16000, np.int16)), Encoding.CONTAINER)).clip.seconds == 1
        assert died_of.name in caplog.text

    async def test_a_decode_gets_only_the_memory_for_its_own_size(self, harmed: Decoder) -> None:
        with pytest.raises(InvalidArgumentError):
            await harmed.decode(bytes([2] * 800), Encoding.MULAW, 8000)
        assert harmed.pool.restarts == 0
        assert (await harmed.decode(bytes(180 << 20), Encoding.FLOAT32, 16000)).clip.seconds == 180 * 2**20 / 64000
        with pytest.raises(InvalidArgumentError):
            await harmed.decode(bytes([2]) * (9 << 20), Encoding.MULAW, 8000)
        assert (await harmed.decode(bytes(180 << 20), Encoding.FLOAT32, 16000)).clip.seconds == 180 * 2**20 / 64000
        assert harmed.long_pool.restarts == 0, "the limit of one decode does not hold for the next"


class TestSandbox:
    async def test_the_sandbox_is_logged_once_at_start(self, caplog: pytest.LogCaptureFixture) -> None:
        decoder = Decoder(DecodeSettings(workers=2), Limits())
        with caplog.at_level("INFO"):
            await decoder.start()
        await decoder.close()
        (line,) = (record.getMessage() for record in caplog.records if "sandbox" in record.getMessage())
        assert line.startswith("decoder sandbox: ")
        assert "rlimits" in line
        if sys.platform == "linux":
            assert "no_new_privs" in line

    async def test_a_missing_required_layer_prevents_the_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lacking.py").write_text(
            "import sys\n"
            "from aligner_svc.workers import sandbox\n"
            "from aligner_svc.audio import decode_worker\n"
            "sandbox.version = lambda: 'the kernel has none'\n"
            "decode_worker.main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        decoder = Decoder(DecodeSettings(workers=1), Limits())
        decoder.pool = WorkerPool("lacking", 1, args=(str(1 << 30), "120", "required"), name="decoder")
        with pytest.raises(WorkerDiedError, match=r"required, but (landlock|no_new_privs) is not available"):
            await decoder.start()
