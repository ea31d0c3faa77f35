# ruff: noqa: RUF001  look-alikes are the point
"""The service with Qwen3-ForcedAligner in it: a tiny one with random weights, which answers as qwen-asr has it answer."""

from __future__ import annotations

import asyncio
import shutil
import threading
import unicodedata
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.torch import load_file, save_file

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.engine import QwenSettings
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.forward import PackedAligner, TimestampSlots
from aligner_svc.engines.qwen.preparation import Prepared
from aligner_svc.server import Service, StartError
from tests.kit import qwen_material, recordings, refusals, uploads
from tests.kit.qwen_material import LANGUAGES
from tests.kit.qwen_reference import Reference
from tests.kit.refusals import Refusal, refusal
from tests.kit.servers import calling, connect, launched, service, serving
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SERVICE = "aligner.v1.Aligner"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SECONDS = 7

TEXTS = {
    "de": ("„Grüß Gott!“, Köln-Ehrenfeld um 8:30 Uhr", "Grüß|Gott|Köln-Ehrenfeld|um|8:30|Uhr"),
    "en": ("“Hello,” state-of-the-art 3.14 can’t — re\u0301sume\u0301!", "Hello|state-of-the-art|3.14|can’t|re\u0301sume\u0301"),
    "es": ("¿Dónde está el niño? 1.000 pingüinos", "Dónde|está|el|niño|1.000|pingüinos"),
    "fr": ("L'été, j’ai vu l’Hôtel-de-Ville… « ça ! »", "L'été|j’ai|vu|l’Hôtel-de-Ville|ça"),
    "it": ("Un po' d'acqua; l’Aquila è lì", "Un|po|d'acqua|l’Aquila|è|lì"),
    "ja": ("今日は、Pythonで ㌔メートル。", None),
    "ko": ("안녕하세요, “오늘은” 3.14는 AI기술을", "안녕|하세요|오늘은|3.14는|AI기술을"),
    "pt": ("Não há: o avô e a avó — à mão", "Não|há|o|avô|e|a|avó|à|mão"),
    "ru": ("Съешь же ещё «ёлка» №5, кто-то", "Съешь|же|ещё|ёлка|5|кто-то"),
    "yue": ("我哋用OK嘅。", "我|哋|用|OK|嘅"),
    "zh": ("😀 我用Python写code， 3.14！", "我|用|Python|写|code|3.14"),
}  # fmt: skip
"""A transcript of every language, and its words as the caller spells them."""


def health() -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=SERVICE)


@pytest.fixture(scope="module")
def qwen(tiny_checkpoint: Path) -> QwenSettings:
    return QwenSettings(model=str(tiny_checkpoint), device="cpu", dtype="fp32")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(qwen: QwenSettings) -> AsyncIterator[Service]:
    async with serving(qwen=qwen) as running:
        yield running


def speech(language: str, seconds: float = SECONDS) -> recordings.Samples:
    return qwen_material.audio(np.random.default_rng(LANGUAGES.index(language)), int(seconds * SAMPLE_RATE))


def request(transcript: str, language: str, samples: recordings.Samples | None = None) -> pb.AlignRequest:
    config = pb.AlignConfig(transcript=transcript, language=language)
    return pb.AlignRequest(config=config, audio=recordings.wav(speech(language) if samples is None else samples))


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return refusal(caught.value)


# Answers


def check(words: Sequence[pb.Word], language: str, reference: Reference) -> None:
    """The caller's spelling, where it stands in the transcript, and the reference's times of the text in composed form."""
    text, spelled = TEXTS[language]
    if spelled is not None:
        assert [word.text for word in words] == spelled.split("|")
    assert [text[word.char_start : word.char_end] for word in words] == [word.text for word in words]
    wanted = reference.solo(speech(language), unicodedata.normalize("NFC", text), language)
    assert [(word.start_ms, word.end_ms) for word in words] == [
        (round(word.start * 1000), round(word.end * 1000)) for word in wanted
    ]
    assert all(0 <= word.confidence <= 1 for word in words)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_align(language: str, stub: AlignerStub, reference: Reference) -> None:
    response = await stub.Align(request(TEXTS[language][0], language))
    check(response.words, language, reference)
    assert response.summary.language == language
    assert response.summary.audio_ms == SECONDS * 1000
    assert response.summary.engine.startswith("qwen3-forced-aligner-")
    assert response.summary.timing.align_ms >= 0


@pytest.mark.parametrize("language", ["en", "ja"])
async def test_stream_align(language: str, stub: AlignerStub, reference: Reference) -> None:
    data = recordings.wav(speech(language))
    answer = await uploads.stream(stub, [uploads.config(TEXTS[language][0], language), *uploads.chunks(data)])
    check(answer.words, language, reference)
    assert answer.summary.language == language


async def test_all_languages_at_once(stub: AlignerStub, reference: Reference) -> None:
    responses = await asyncio.gather(*(stub.Align(request(TEXTS[language][0], language)) for language in LANGUAGES * 2))
    for language, response in zip(LANGUAGES * 2, responses, strict=True):
        check(response.words, language, reference)


async def test_a_region_is_accepted(stub: AlignerStub, reference: Reference) -> None:
    response = await stub.Align(request(TEXTS["pt"][0], "pt-BR", speech("pt")))
    check(response.words, "pt", reference)
    assert response.summary.language == "pt"


async def test_server_info(stub: AlignerStub) -> None:
    info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.engine.startswith("qwen3-forced-aligner-")
    assert list(info.languages) == list(LANGUAGES)
    assert info.limits.audio_seconds == 300


# Refusals


async def test_a_language_the_model_was_not_made_for(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("een woord", "nl", speech("de"))))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "LANGUAGE_UNKNOWN", "config.language")
    assert ", ".join(LANGUAGES) in found.message


async def test_audio_that_is_too_long(stub: AlignerStub) -> None:
    silence = np.zeros(301 * SAMPLE_RATE, np.int16)
    found = await refused(stub.Align(request("a word", "en", silence)))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_TOO_LONG", "audio")
    assert "300" in found.message


async def test_more_words_than_anybody_speaks(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("word " * 30, "en", speech("en", 1.0))))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_DENSE", "config.transcript")


async def test_more_text_than_any_audio_holds(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("の" * 6_001, "ja")))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_LONG", "config.transcript")
    assert "6000" in found.message


@pytest.mark.parametrize("text", ["… — !", "👍", "\u0301"])
@pytest.mark.parametrize("language", ["en", "ja", "ko"])
async def test_nothing_to_align_never_reaches_the_device(
    text: str, language: str, stub: AlignerStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[int] = []
    monkeypatch.setattr(PackedAligner, "__call__", lambda _model, batch: reached.append(len(batch)))
    found = await refused(stub.Align(request(text, language)))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_NO_WORDS", "config.transcript")
    assert reached == []


# Health


async def test_not_serving_until_it_is_loaded(qwen: QwenSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    loading, ready = threading.Event(), threading.Event()
    plain = checkpoint.load

    def load(*arguments: Any) -> checkpoint.Checkpoint:
        loading.set()
        assert ready.wait(60)
        return plain(*arguments)

    monkeypatch.setattr(checkpoint, "load", load)
    running = service(qwen=qwen)
    starting = asyncio.create_task(running.start())
    await eventually(loading.is_set, "the model to be loaded")
    async with connect(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health())).status == NOT_SERVING
        watch = aiter(stub.Watch(health()))
        assert (await anext(watch)).status == NOT_SERVING
        ready.set()
        assert (await anext(watch)).status == SERVING
        await starting
        assert (await stub.Check(health())).status == SERVING
    await running.drain()


async def test_not_serving_while_the_device_fails(
    qwen: QwenSettings, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    plain = PackedAligner.__call__

    def forward(model: PackedAligner, batch: Sequence[Prepared]) -> list[TimestampSlots]:
        if broken.is_set():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return plain(model, batch)

    monkeypatch.setattr(PackedAligner, "__call__", forward)
    async with serving(qwen=qwen) as running, connect(running.address) as channel:
        running.engine.batcher.device.recheck_seconds = (0.05, 0.1)  # 5 to 60 would be too long here
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health()))
        assert (await anext(watch)).status == SERVING
        stub = AlignerStub(channel)
        broken.set()
        for _ in range(3):  # a clip or two may be to blame themselves
            found = await refused(stub.Align(request(TEXTS["en"][0], "en")))
            if found.code is not grpc.StatusCode.INTERNAL:
                break
        refusals.check(found, grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED", None)
        assert found.retry_seconds
        assert (await anext(watch)).status == NOT_SERVING
        found = await refused(stub.Align(request(TEXTS["en"][0], "en")))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
        broken.clear()
        assert (await anext(watch)).status == SERVING
        check((await stub.Align(request(TEXTS["en"][0], "en"))).words, "en", reference)


# The command


def arguments(model: Path | str, device: str = "cpu") -> tuple[str, ...]:
    return ("--listen", "127.0.0.1:0", "--engine", "qwen", "--model", str(model), "--device", device, "--dtype", "fp32")


QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ALIGNER_SERVER__DRAIN_DELAY": "0"}


async def test_the_command(tmp_path: Path, tiny_checkpoint: Path, reference: Reference) -> None:
    async with launched(tmp_path, *arguments(tiny_checkpoint), **QUIET) as command:
        async with calling(await command.ready()) as stub:
            check((await stub.Align(request(TEXTS["en"][0], "en"))).words, "en", reference)
            check((await stub.Align(request(TEXTS["ja"][0], "ja"))).words, "ja", reference)
        command.process.terminate()
        assert await command.exit_code() == 0, command.log
    assert "Traceback" not in command.log
    assert f"{tiny_checkpoint} on cpu in torch.float32" in command.log


async def test_missing_weights_are_named_and_the_library_adds_nothing(
    tmp_path: Path, tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library that loads them would advise to train the model."""
    damaged = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    tensors = load_file(damaged / "model.safetensors")
    del tensors["thinker.lm_head.weight"]
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(StartError, match=f"{damaged}: the weights lack thinker.lm_head.weight"):
        await service(qwen=QwenSettings(model=str(damaged), device="cpu")).start()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
async def test_a_gpu_that_is_missing_stops_the_start(tiny_checkpoint: Path) -> None:
    with pytest.raises(StartError, match="device cuda"):
        service(qwen=QwenSettings(model=str(tiny_checkpoint), device="cuda"))


async def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"config\.json is missing"):
        await service(qwen=QwenSettings(model=str(tmp_path), device="cpu")).start()
    with pytest.raises(StartError, match="nothing: not a folder"):
        await service(qwen=QwenSettings(model=str(tmp_path / "nothing"), device="cpu")).start()
