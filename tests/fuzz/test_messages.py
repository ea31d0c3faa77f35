"""Whatever messages come in whatever order, a server answers each call: with words or with one refusal that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.limits import Limits
from aligner_svc.server import Service
from tests.kit.recordings import samples, wav
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

DEADLINE: Final = 30.0
"""Seconds; no call comes near it, and one that does is a hang."""

LIMITS: Final = Limits(
    unary_audio_bytes=100_000, stream_audio_bytes=200_000, stream_chunk_bytes=50_000, transcript_chars=2000, audio_seconds=10
)
REFUSED: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DATA_LOSS,
    }
)
GOOD: Final = wav(samples()[:16_000])

# ---- what callers send

texts = st.one_of(
    st.sampled_from(["", " ", "Hello world", "...", "\0", "\u202e\ufeff", "1" * 300, "caf\u00e9 " * 20, "\U0001f600"]),
    st.text(max_size=200),
    st.just("word " * 500),
)
tags = st.one_of(st.sampled_from(["en", "en-GB", "fr", "xx", "", "e", "en--", "EN_us"]), st.text(max_size=12))
numbers = st.one_of(st.sampled_from([0, 1, 2, 8, 9, 3999, 4000, 16_000, 192_000, 192_001, 2**32 - 1]), st.integers(0, 2**32 - 1))
configs = st.builds(
    pb.AlignConfig,
    transcript=texts,
    language=tags,
    encoding=st.one_of(st.integers(0, 3), st.sampled_from([4, 99, -1, 2**31 - 1])),
    sample_rate_hz=numbers,
    channels=numbers,
    audio_bytes=st.one_of(st.just(0), st.integers(0, 2**64 - 1)),
    audio_sha256=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32), st.binary(max_size=40)),
)
# As a client means it: so that not every call is refused for its language.
plausible = st.builds(
    pb.AlignConfig,
    transcript=st.sampled_from(["Hello world", "", "He began a confused complaint"]),
    language=st.just("en"),
    encoding=st.integers(0, 3),
    sample_rate_hz=st.sampled_from([0, 8000, 16_000]),
    channels=st.integers(0, 2),
)
audio = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"", GOOD, GOOD[:100], GOOD[44:], GOOD[:5000], bytes(50_000), bytes(50_001), b"fLaC", b"OggS" + bytes(100)]),
)
messages = st.one_of(
    st.builds(lambda value: pb.StreamAlignRequest(audio=value), audio),
    st.builds(lambda value: pb.StreamAlignRequest(transcript=value), texts),
    st.builds(lambda value: pb.StreamAlignRequest(config=value), configs),
    st.just(pb.StreamAlignRequest()),
)
# A good file in chunks, text between them; now and then something that does not belong.
cut = st.integers(1, 20_000).map(
    lambda size: [pb.StreamAlignRequest(audio=GOOD[start : start + size]) for start in range(0, len(GOOD), max(size, 2000))]
)
uploads = st.one_of(
    st.lists(messages, max_size=8),
    st.builds(
        lambda first, rest: [pb.StreamAlignRequest(config=first), *rest], st.one_of(plausible, configs), st.lists(messages)
    ),
    st.builds(
        lambda first, chunks, more, at: [pb.StreamAlignRequest(config=first), *chunks[:at], *more, *chunks[at:]],
        plausible,
        cut,
        st.lists(messages, max_size=1),
        st.integers(0, 8),
    ),
)


class Guarded:
    """A whole server with a scripted engine, and the event loop it runs on: hypothesis calls tests outside of one."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self._parts = serving(engine=ScriptedEngine(), limits=LIMITS)
        self.service: Service = self.runner.run(self._parts.__aenter__())
        self.pids = self.service.decoder.pool.pids

    def align(self, request: pb.AlignRequest) -> grpc.RpcError | pb.AlignResponse:
        async def call() -> grpc.RpcError | pb.AlignResponse:
            async with calling(self.service.address) as stub:
                try:
                    return await stub.Align(request, timeout=DEADLINE)
                except grpc.RpcError as error:
                    return error

        return self.runner.run(call())

    def stream(self, upload: list[pb.StreamAlignRequest]) -> grpc.RpcError | list[pb.StreamAlignResponse]:
        """Over a blocking channel: grpc.aio's client puts an INTERNAL of its own over a refusal that comes while it writes."""

        def call() -> grpc.RpcError | list[pb.StreamAlignResponse]:
            with grpc.insecure_channel(self.service.address, [("grpc.enable_http_proxy", 0)]) as channel:
                try:
                    return list(AlignerStub(channel).StreamAlign(iter(upload), timeout=DEADLINE))
                except grpc.RpcError as error:
                    return error

        return self.runner.run(asyncio.to_thread(call))

    def close(self) -> None:
        self.runner.run(self._parts.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    server = Guarded()
    yield server
    server.close()


def check_refusal(error: grpc.RpcError) -> None:
    reported = refusal(error)
    assert reported.code in REFUSED, f"{reported.code}: {reported.message}"
    assert reported.reason.isupper()
    assert reported.message
    assert "in time" not in reported.message


def check_words(words: list[pb.Word], transcript: str) -> None:
    assert words
    for word in words:
        sent = transcript[word.char_start : word.char_end]
        assert sent == word.text or "&" in sent or "<" in sent
        assert word.start_ms <= word.end_ms


@given(config=st.one_of(configs, plausible), content=audio)
def test_any_config_with_any_audio(guarded: Guarded, config: pb.AlignConfig, content: bytes) -> None:
    answer = guarded.align(pb.AlignRequest(config=config, audio=content))
    if isinstance(answer, grpc.RpcError):
        check_refusal(answer)
    else:
        check_words(list(answer.words), config.transcript)
        assert answer.summary.audio_ms <= LIMITS.audio_seconds * 1000


@given(upload=uploads)
def test_any_messages_in_any_order(guarded: Guarded, upload: list[pb.StreamAlignRequest]) -> None:
    answer = guarded.stream(upload)
    if isinstance(answer, grpc.RpcError):
        check_refusal(answer)
        return
    assert [part.WhichOneof("payload") for part in answer].count("summary") == 1
    assert answer[-1].WhichOneof("payload") == "summary", "the summary is last"
    words = [word for part in answer for word in part.words.words]
    check_words(words, upload[0].config.transcript + "".join(request.transcript for request in upload))


@settings(max_examples=60)
@given(data=st.binary(max_size=400))
def test_any_bytes_for_a_message(guarded: Guarded, data: bytes) -> None:
    """Past the generated stub: invalid protobuf, and messages with unknown fields."""

    async def call() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(guarded.service.address) as channel:
            raw = channel.unary_unary("/aligner.v1.Aligner/Align", request_serializer=bytes, response_deserializer=bytes)
            try:
                await raw(data, timeout=DEADLINE)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    assert guarded.runner.run(call()) in REFUSED | {grpc.StatusCode.OK}


def test_some_of_it_is_served_and_the_server_is_as_before(guarded: Guarded) -> None:
    """Without this one, a server that refuses everything would pass."""
    answer = guarded.align(pb.AlignRequest(config=pb.AlignConfig(transcript="Hello world", language="en"), audio=GOOD))
    assert isinstance(answer, pb.AlignResponse)
    assert [word.text for word in answer.words] == ["Hello", "world"]
    assert guarded.service.decoder.pool.pids == guarded.pids, "no message costs a process"
