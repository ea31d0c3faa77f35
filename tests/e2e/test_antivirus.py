"""A real clamd behind the whole service: nothing infected is answered, and without a verdict nothing is worked on."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from aligner_client import AsyncAligner, InvalidArgumentError
from aligner_client.api.v1 import aligner_pb2
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.protection import AntivirusSettings
from aligner_svc.server import StartError
from tests.kit.clamd_server import EICAR, ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.guarded import Home, bearer
from tests.kit.recordings import SPEECH, TRANSCRIPT, samples
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.waiting import eventually

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
LARGEST = 12 << 20


def infected(audio: bytes = SPEECH) -> aligner_pb2.AlignRequest:
    return aligner_pb2.AlignRequest(config=ALIGN.config, audio=audio + EICAR)


def settings(clamd: ClamdServer, **changes: object) -> AntivirusSettings:
    return AntivirusSettings(address=clamd.address("unix"), stream_max_bytes=LARGEST, timeout=2.0, scan_timeout=10.0, **changes)


async def refused(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    reported = refusal(error.value)
    return reported.code.name, reported.reason


async def test_what_is_infected_never_reaches_the_decoder(tmp_path, clamav: ClamdServer) -> None:  # noqa: F811
    engine = ScriptedEngine()
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    async with home.serving(engine=engine, antivirus=settings(clamav)) as running, home.connect(running) as channel:
        stub = AlignerStub(channel)
        metadata = [bearer(home.forge.token())]
        assert (await stub.Align(ALIGN, metadata=metadata)).words
        call = stub.Align(infected(), metadata=[*metadata, ("x-request-id", "bad")])
        assert await refused(call) == ("INVALID_ARGUMENT", "MALWARE_FOUND")
        [line] = await home.events_of("bad")
        assert (line["event"], line["check"]) == ("malware_found", "malware")
        assert "Eicar" in line["detail"]
        assert line["principal"].endswith("#service-a")
    assert len(engine.started) == 1


def upload(*chunks: bytes) -> list[aligner_pb2.StreamAlignRequest]:
    return [
        aligner_pb2.StreamAlignRequest(config=ALIGN.config),
        *(aligner_pb2.StreamAlignRequest(audio=chunk) for chunk in chunks),
    ]


async def test_a_stream_is_scanned_as_it_comes_in(clamav: ClamdServer) -> None:  # noqa: F811
    half = len(EICAR) // 2
    chunks = [SPEECH[:50_000], SPEECH[50_000:] + EICAR[:half], EICAR[half:]]
    async with serving(engine=ScriptedEngine(), antivirus=settings(clamav)) as running, AsyncAligner(running.address) as aligner:
        assert (await aligner.stream_align(iter([SPEECH[:50_000], SPEECH[50_000:]]), TRANSCRIPT)).words
        with pytest.raises(InvalidArgumentError) as error:
            await aligner.stream_align(iter(chunks), TRANSCRIPT)
        assert error.value.reason == "MALWARE_FOUND"


async def test_a_stream_is_worked_on_meanwhile_and_no_word_leaves_before_the_verdict(clamav: ClamdServer) -> None:  # noqa: F811
    engine = ScriptedEngine()
    async with serving(engine=engine, antivirus=settings(clamav)) as running, calling(running.address) as stub:
        clamav.pause()
        call = stub.StreamAlign(iter(upload(SPEECH)))

        async def first_words() -> aligner_pb2.StreamAlignResponse:
            return await anext(response async for response in call if response.HasField("words"))

        words = asyncio.ensure_future(first_words())
        await engine.at_gate.acquire()
        # It has its answer at once; that nothing comes can only be waited for.
        await asyncio.wait({words}, timeout=0.2)
        assert not words.done()
        clamav.resume()
        assert (await words).words.words


async def test_work_on_what_turns_out_infected_is_ended(clamav: ClamdServer) -> None:  # noqa: F811
    engine = ScriptedEngine()
    engine.gate.clear()
    async with serving(engine=engine, antivirus=settings(clamav)) as running, calling(running.address) as stub:
        clamav.pause()
        call = stub.StreamAlign(iter(upload(SPEECH, EICAR)))
        reading = asyncio.ensure_future(refused(anext(response async for response in call if response.HasField("words"))))
        await engine.at_gate.acquire()
        clamav.resume()
        assert await reading == ("INVALID_ARGUMENT", "MALWARE_FOUND")
        await eventually(lambda: engine.cancelled == 1, "the work to be ended")


async def test_malware_takes_precedence_over_other_faults(clamav: ClamdServer) -> None:  # noqa: F811
    """And on the record, which a stream that is no audio must not keep it off."""
    async with serving(engine=ScriptedEngine(), antivirus=settings(clamav)) as running, calling(running.address) as stub:
        for audio in (EICAR, SPEECH[:8] + EICAR):
            call = stub.StreamAlign(iter(upload(audio)))
            assert await refused(_drained(call)) == ("INVALID_ARGUMENT", "MALWARE_FOUND")


async def _drained(call) -> None:
    async for _ in call:
        pass


async def test_without_a_verdict_nothing_is_worked_on(clamav: ClamdServer) -> None:  # noqa: F811
    """And it goes on by itself when clamd is back."""
    engine = ScriptedEngine()
    async with serving(engine=engine, antivirus=settings(clamav)) as running, calling(running.address) as stub:
        clamav.kill()
        assert await refused(stub.Align(ALIGN)) == ("UNAVAILABLE", "ANTIVIRUS_UNAVAILABLE")
        assert engine.started == []
        clamav.restart()

        async def aligned() -> bool:
            return await stub.Align(ALIGN).code() == grpc.StatusCode.OK

        await eventually(aligned, "clamd to be found again")


async def test_headerless_audio_may_go_unscanned(clamav: ClamdServer) -> None:  # noqa: F811
    headerless = aligner_pb2.AlignConfig(
        transcript=TRANSCRIPT, language="en", encoding=aligner_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hz=16_000
    )
    request = aligner_pb2.AlignRequest(config=headerless, audio=samples().tobytes())
    skipping = settings(clamav, skip_pcm=True)
    async with serving(engine=ScriptedEngine(), antivirus=skipping) as running, calling(running.address) as stub:
        clamav.kill()
        assert (await stub.Align(request)).words
        assert await refused(stub.Align(ALIGN)) == ("UNAVAILABLE", "ANTIVIRUS_UNAVAILABLE")


async def test_a_scanner_that_takes_less_than_an_upload_stops_the_start(clamav: ClamdServer) -> None:  # noqa: F811
    too_much = AntivirusSettings(address=clamav.address("unix"))
    with pytest.raises(StartError, match="StreamMaxLength"):
        async with serving(engine=ScriptedEngine(), antivirus=too_much):
            pass
