"""Traces of the whole service, as a collector gets them."""

from __future__ import annotations

import grpc
import pytest

from aligner_client.api.v1 import aligner_pb2
from aligner_svc.config.telemetry import TracingSettings
from tests.kit.guarded import Home, bearer
from tests.kit.otlp_receiver import OtlpReceiver
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS, repeated
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
NO_WORDS = aligner_pb2.AlignConfig(transcript="...", language="en")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")


async def test_a_callers_trace_goes_on_through_the_stages_and_the_batch() -> None:
    """With the real engine: what waits, decodes and aligns is a span each, and the batch is linked to the call."""
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=0.0)
        async with serving(tracing=tracing) as running, calling(running.address) as stub:
            answer = await stub.Align(ALIGN, metadata=[SAMPLED])
            assert [word.text for word in answer.words] == list(WORDS)
        names = {"aligner.v1.Aligner/Align", "text", "decode", "queue", "align", "batch"}
        await collector.until(lambda seen: names <= {span.name for span in seen.spans})
        call = collector.named("aligner.v1.Aligner/Align")
        assert call.trace == TRACE
        for name in ("text", "decode", "queue", "align"):
            span = collector.named(name)
            assert (span.trace, span.parent) == (TRACE, call.span)
        decode = collector.named("decode").attributes
        assert (decode["aligner.bytes"], decode["aligner.container"]) == (len(SPEECH), "flac")
        assert decode["aligner.audio_seconds"] == pytest.approx(4.905, abs=0.001)
        assert TRACE in {trace for trace, _ in collector.named("batch").links}
        assert TRANSCRIPT.split()[0] not in str(collector.spans)


async def test_a_long_recording_has_a_span_for_each_window() -> None:
    audio, transcript = repeated(8)
    long = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=transcript, language="en"), audio=audio)
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=0.0)
        async with serving(tracing=tracing) as running, calling(running.address) as stub:
            answer = await stub.Align(long, metadata=[SAMPLED])
        await collector.until(lambda seen: "align" in {span.name for span in seen.spans})
    windows = sorted(
        (span.attributes["aligner.audio_from"], span.attributes["aligner.audio_to"])
        for span in collector.spans
        if span.name == "window"
    )
    ends = [end for _, end in windows]
    assert len(windows) >= 2
    assert [0.0, *ends[:-1]] == [begin for begin, _ in windows], "each begins where the last one ended"
    assert ends[-1] * 1000 == pytest.approx(answer.summary.audio_ms, abs=1)


@pytest.mark.parametrize(
    ("request_", "stage", "reason"),
    [
        (aligner_pb2.AlignRequest(config=ALIGN.config, audio=SPEECH[:44] + b"x"), "decode", "AUDIO_"),
        (aligner_pb2.AlignRequest(config=NO_WORDS, audio=SPEECH), "text", "TRANSCRIPT_"),
    ],
)
async def test_a_call_that_fails_says_where(request_, stage, reason) -> None:
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=0.0)
        async with serving(tracing=tracing, engine=ScriptedEngine()) as running, calling(running.address) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Align(request_, metadata=[SAMPLED])
        await collector.until(lambda seen: stage in {span.name for span in seen.spans})
    reported = refusal(refused.value).reason
    assert reported.startswith(reason)
    assert collector.named(stage).attributes["error.type"] == reported


async def test_a_refusal_says_why_and_a_fault_is_kept(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=0.0)
        async with home.serving(tracing=tracing) as running, home.connect(running) as channel:
            align = channel.unary_unary("/aligner.v1.Aligner/Align", aligner_pb2.AlignRequest.SerializeToString)
            with pytest.raises(grpc.aio.AioRpcError):
                await align(ALIGN, metadata=[SAMPLED])
            running.engine.error = RuntimeError("hunter2")
            with pytest.raises(grpc.aio.AioRpcError):
                await align(ALIGN, metadata=[bearer(home.forge.token())])
        await collector.until(lambda seen: sum(span.name == "aligner.v1.Aligner/Align" for span in seen.spans) == 2)
        reported = {
            span.attributes["rpc.response.status_code"]: span.attributes.get("aligner.reason")
            for span in collector.spans
            if span.name == "aligner.v1.Aligner/Align"
        }
        assert reported["UNAUTHENTICATED"] == "CREDENTIALS_MISSING"
        assert "INTERNAL" in reported
        assert "hunter2" not in str(collector.spans)
