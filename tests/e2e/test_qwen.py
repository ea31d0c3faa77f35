# ruff: noqa: RUF001  look-alikes are the point
"""The service with Qwen3-ForcedAligner in it: a tiny one with random weights, which answers as qwen-asr has it answer."""

from __future__ import annotations

import asyncio
import os
import signal
import unicodedata
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.engine import QwenSettings
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.server import Service
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
    assert info.limits.audio_seconds == 4 * 3600


# Refusals


async def test_a_language_the_model_was_not_made_for(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("een woord", "nl", speech("de"))))
    refusals.check(found, grpc.StatusCode.FAILED_PRECONDITION, "LANGUAGE_UNSUPPORTED", "config.language")
    assert ", ".join(LANGUAGES) in found.message


async def test_more_words_than_anybody_speaks(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("word " * 30, "en", speech("en", 1.0))))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_DENSE", "config.transcript")


async def test_more_text_than_any_audio_holds(stub: AlignerStub) -> None:
    found = await refused(stub.Align(request("の" * 6_001, "ja")))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_LONG", "config.transcript")
    assert "6000" in found.message


@pytest.mark.parametrize("text", ["… — !", "👍", "\u0301"])
@pytest.mark.parametrize("language", ["en", "ja", "ko"])
async def test_nothing_to_align_never_reaches_the_device(text: str, language: str, server: Service, stub: AlignerStub) -> None:
    (children,) = server.engine.report.pools
    before = children.places()
    found = await refused(stub.Align(request(text, language)))
    refusals.check(found, grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_NO_WORDS", "config.transcript")
    assert children.places() == before


# Health


async def test_not_serving_until_it_is_loaded(qwen: QwenSettings) -> None:
    running = service(qwen=qwen)
    starting = asyncio.create_task(running.start())
    await eventually(lambda: running.address)
    async with connect(running.address) as channel:
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health()))
        assert (await anext(watch)).status == NOT_SERVING
        assert not starting.done()
        assert (await anext(watch)).status == SERVING
        await starting
    await running.drain()


async def test_not_serving_while_the_device_s_process_is_replaced(
    server: Service, stub: AlignerStub, reference: Reference
) -> None:
    """And a call that arrives meanwhile is answered."""
    (children,) = server.engine.report.pools
    async with connect(server.address) as channel:
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health()))
        assert (await anext(watch)).status == SERVING
        os.kill(children.pids[0], signal.SIGKILL)
        call = asyncio.ensure_future(stub.Align(request(TEXTS["en"][0], "en")))
        assert (await anext(watch)).status == NOT_SERVING
        check((await call).words, "en", reference)
        assert (await anext(watch)).status == SERVING


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


async def test_each_channel_of_a_call_has_the_words_that_it_has_alone(stub: AlignerStub) -> None:
    voices = [speech("en", 3), speech("de", 3)]
    text, _ = TEXTS["en"]
    stereo = recordings.raw_wav(np.stack(voices, axis=1).astype("<i2").tobytes(), channels=2)
    config = pb.AlignConfig(language="en")
    config.channel_transcripts.extend(pb.ChannelTranscript(channel=channel, transcript=text) for channel in (0, 1))
    both = await stub.Align(pb.AlignRequest(config=config, audio=stereo))
    for channel, voice in enumerate(voices):
        alone = await stub.Align(request(text, "en", voice))
        of_it = [word for word in both.words if word.channel == channel]
        assert [(word.text, word.start_ms, word.end_ms) for word in of_it] == [
            (word.text, word.start_ms, word.end_ms) for word in alone.words
        ]
