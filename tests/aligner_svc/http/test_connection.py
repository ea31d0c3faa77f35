"""HTTP/1.1 as strangers send it: what is not valid, never ends, comes too slowly, or means two things at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from hashlib import sha256

import httpx
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.http import HttpSettings
from aligner_svc.config.limits import Limits
from aligner_svc.config.protection import ConnectionSettings
from aligner_svc.config.telemetry import MetricsSettings
from aligner_svc.http import connection
from aligner_svc.server import Service
from tests.kit.http1 import form, http1, request
from tests.kit.http_channel import HttpChannel
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving
from tests.kit.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/audio/alignments"
KIND, GOOD = form(('name="file"; filename="a"', SPEECH), ('name="text"', TRANSCRIPT.encode()), ('name="language"', b"en"))
INFO = request("GET", "/v1/info")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Service]:
    parts = {
        "limits": Limits(unary_seconds=0.3),
        "connections": ConnectionSettings(most=12, per_address=8),
        "metrics": MetricsSettings(listen="127.0.0.1:0"),
    }
    async with serving(engine=ScriptedEngine(), http=HttpSettings(listen="127.0.0.1:0"), **parts) as running:
        yield running


FRAMING = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00", "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /v1/info HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/info HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "two lengths": request("POST", PATH, KIND, ("content-length", "5"), ("content-length", "6")),
    "length and chunks": request("POST", PATH, KIND, ("content-length", "5"), ("transfer-encoding", "chunked")) + b"0\r\n\r\n",
    "a negative length": request("POST", PATH, KIND, ("content-length", "-1")),
    "a length with a sign": request("POST", PATH, KIND, ("content-length", "+5")),
    "chunks of HTTP/1.0": b"POST /v1/audio/alignments HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "an odd coding": request("POST", PATH, KIND, ("transfer-encoding", "xchunked")),
    "two codings": request("POST", PATH, KIND, ("transfer-encoding", "gzip, chunked")),
    "a blank before the colon": b"GET /v1/info HTTP/1.1\r\nhost : a\r\n\r\n",
    "a NUL in a header": request("GET", "/v1/info", ("x", "a\0b")), "a blank in the path": request("GET", "/v1/ info"),
    "a huge header": request("GET", "/v1/info", ("x", "a" * 50_000)),
    "many headers": request("GET", "/v1/info", *[("x", "a" * 20)] * 2000),
    "a long path": request("GET", "/" + "a" * 50_000), "a tab in a name": b"GET /v1/info HTTP/1.1\r\nho\tst: a\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("raw", FRAMING.values(), ids=FRAMING)
async def test_what_is_not_http_is_refused_and_nothing_after_it_is_served(server, raw) -> None:
    async with http1(server.http_address) as client:
        await client.send(raw + INFO)
        reply = await client.reply()
        assert reply.status in {400, 431, 501, 505}, reply
        assert await client.closed()


async def test_headers_over_the_limit_of_metadata_are_refused_with_a_reason(server) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("GET", "/v1/info", ("x", "a" * 9000)))
        reply = await client.reply()
        assert (reply.status, reply.reason) == (431, "HEADERS_TOO_LARGE")


async def test_requests_follow_one_another_on_a_connection(server) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, KIND, body=GOOD) + INFO + INFO)
        replies = [await client.reply() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 200]
        await client.send(request("GET", "/v1/info", ("connection", "close")))
        assert (await client.reply()).status == 200
        assert await client.closed()


async def test_chunks_and_expect_are_understood(server) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, KIND, ("expect", "100-continue"), ("transfer-encoding", "chunked")))
        assert (await client.reply()).status == 100
        for at in range(0, len(GOOD), 50_000):
            part = GOOD[at : at + 50_000]
            await client.send(b"%x\r\n%b\r\n" % (len(part), part))
        await client.send(b"0\r\n\r\n")
        assert (await client.reply()).status == 200


async def test_a_refused_body_is_not_asked_for(server) -> None:
    async with http1(server.http_address) as client:
        await client.send(
            request("POST", PATH, ("content-type", "text/plain"), ("expect", "100-continue"), ("content-length", "9999"))
        )
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (415, "close")
        assert await client.closed()


@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n", b"5\r\nhel"], ids=["nothing", "a chunk", "half of one"])
async def test_a_body_that_does_not_end_is_given_up(server, sent) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, ("content-type", "application/json"), ("transfer-encoding", "chunked")) + sent)
        reply = await client.reply()
        assert (reply.status, reply.reason) == (408, "UPLOAD_TOO_SLOW")


@pytest.mark.parametrize("sent", [b"zz\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX", b"5;" + b"a" * 50_000], ids=range(4))
async def test_broken_chunks_are_refused(server, sent) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, ("content-type", "application/json"), ("transfer-encoding", "chunked")) + sent)
        reply = await client.reply()
        assert (reply.status, reply.reason) == (400, "MESSAGE_MALFORMED")
        assert await client.closed()


@pytest.mark.parametrize("sent", [b"", b"GET /v1/in", INFO + b"GET /v1/in"], ids=["nothing", "half a head", "half of the second"])
async def test_heads_that_do_not_come_close_the_connection(server, monkeypatch, sent) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    async with http1(server.http_address) as client:
        await client.send(sent)
        if sent.startswith(INFO):
            assert (await client.reply()).status == 200
        assert await client.closed()


FORMS = {
    "a field twice": form(('name="file"', b"a"), ('name="text"', b"a"), ('name="text"', b"b")),
    "text and transcript": form(('name="text"', b"a"), ('name="transcript"', b"b")),
    "two files": form(('name="file"', b"a"), ('name="audio"', b"b")),
    "an unknown field": form(('name="admin"', b"1")), "no name": form(("x=1", b"1")), "an empty name": form(('name=""', b"1")),
    "10,000 parts": form(*[(f'name="f{n}"', b"x") for n in range(10_000)]),
    "10,000 of one name": form(*[('name="file"', b"x")] * 10_000),
    "a long field": form(('name="language"', b"x" * 300_000)),
    "a long transcript": form(('name="text"', b"x" * 900_000)),
    "a long header": form(('name="file"; filename="' + "a" * 5000 + '"', b"x")),
    "not UTF-8": form(('name="text"', b"\xff")), "not complete": (KIND, GOOD[:-4]), "nothing": (KIND, b""),
    "another boundary": (("content-type", "multipart/form-data; boundary=other"), GOOD),
    "no boundary": (("content-type", "multipart/form-data"), GOOD),
    "an empty boundary": (("content-type", 'multipart/form-data; boundary=""'), GOOD),
    "a long boundary": (("content-type", "multipart/form-data; boundary=" + "b" * 5000), GOOD),
    "after the end": (KIND, GOOD + b"x" * 200_000),
    "two boundaries": (("content-type", "multipart/form-data; boundary=other; boundary=limit"), GOOD),
    "two names": form(('name="text"; name="file"', b"x")),
    "no disposition": (KIND, b"--limit\r\ncontent-type: text/plain\r\n\r\nx\r\n--limit--\r\n"),
    "two dispositions": form(('name="text"\r\ncontent-disposition: form-data; name="file"', b"x")),
    "an attachment": (KIND, b'--limit\r\ncontent-disposition: attachment; name="file"\r\n\r\nx\r\n--limit--\r\n'),
    "a bad number": form(('name="channels"', b"two")), "JSON that is none": form(('name="retiming"', b"{")),
    "another encoding": form(('name="encoding"', b"MP3")),
}  # fmt: skip


@pytest.mark.parametrize(("header", "body"), FORMS.values(), ids=FORMS)
async def test_forms_that_are_not_the_message_are_refused(server, header, body) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, header, body=body))
        reply = await client.reply()
        assert (reply.status, reply.reason) == (400, "MESSAGE_MALFORMED"), reply


async def test_the_file_of_a_form_is_known_by_its_bytes_alone(server) -> None:
    header, body = form(
        ('name="file"; filename="../../etc/passwd\0.exe"\r\ncontent-type: text/html', SPEECH),
        ('name="text"', TRANSCRIPT.encode()),
        ('name="language"', b"en"),
    )
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, header, body=body))
        reply = await client.reply()
        assert reply.status == 200
        assert b"passwd" not in reply.body


@pytest.mark.parametrize("name", ["content-type", "connect-timeout-ms", "content-encoding"])
async def test_headers_that_decide_are_sent_once(server, name) -> None:
    async with http1(server.http_address) as client:
        await client.send(request("POST", PATH, KIND, (name, "1"), (name, "1"), body=GOOD))
        reply = await client.reply()
        assert (reply.status, reply.reason) == (400, "MESSAGE_MALFORMED")


async def test_a_client_that_goes_ends_its_call(server) -> None:
    server.engine.gate.clear()
    before = server.engine.cancelled
    try:
        async with http1(server.http_address) as client:
            started = len(server.engine.started)
            await client.send(request("POST", PATH, KIND, body=GOOD))
            await eventually(lambda: len(server.engine.started) > started, "the engine to be reached")
        await eventually(lambda: server.engine.cancelled > before, "the call to be cancelled")
    finally:
        server.engine.gate.set()


async def test_a_stream_is_answered_while_it_is_sent_and_nothing_of_it_is_lost(server) -> None:
    parts = [SPEECH[at : at + 3000] for at in range(0, len(SPEECH), 3000)]
    config = pb.AlignConfig(transcript=TRANSCRIPT, language="en", audio_bytes=len(SPEECH), audio_sha256=sha256(SPEECH).digest())
    requests = [pb.StreamAlignRequest(config=config), *(pb.StreamAlignRequest(audio=part) for part in parts)]
    call = HttpChannel(server.http_address, None).stream_stream("/aligner.v1.Aligner/StreamAlign")
    answers = [pb.StreamAlignResponse.FromString(each) async for each in call([one.SerializeToString() for one in requests])]
    assert answers[0].progress.received_bytes < len(SPEECH), "an answer came before the upload was complete"
    assert [word.text for answer in answers for word in answer.words.words] == list(WORDS)


async def test_idle_connections_make_room_and_busy_ones_do_not(server) -> None:
    server.engine.gate.clear()
    try:
        async with asyncio.timeout(60), http1(server.http_address) as busy:
            started = len(server.engine.started)
            await busy.send(request("POST", PATH, KIND, body=GOOD))
            await eventually(lambda: len(server.engine.started) > started, "the engine to be reached")
            idle = [await asyncio.open_connection(*server.http_address.rsplit(":", 1)) for _ in range(20)]
            async with http1(server.http_address) as late:
                await late.send(INFO)
                assert (await late.reply()).status == 200
            server.engine.gate.set()
            assert (await busy.reply()).status == 200
            for reader, writer in idle[:5]:
                assert await reader.read(1) == b""
                writer.close()
    finally:
        server.engine.gate.set()


async def test_what_is_asked_over_http_shows_in_metrics_and_in_the_log(server, caplog) -> None:
    async def page() -> dict[str, float]:
        async with httpx.AsyncClient(trust_env=False) as http:
            lines = (await http.get(f"http://{server.metrics_address}/metrics")).text.splitlines()
        series = (line.rpartition(" ") for line in lines if "http" in line and not line.startswith("#"))
        return {name: float(value) for name, _, value in series}

    before = await page()
    with caplog.at_level(logging.INFO, "interceptors.access_log"):
        async with http1(server.http_address) as client:
            await client.send(INFO)
            assert (await client.reply()).status == 200
            assert (await page())['aligner_connections{protocol="http"}'] >= 1
        async with http1(server.http_address) as client:
            await client.send(FRAMING["no host"])
            assert (await client.reply()).status == 400
    after = await page()
    assert {record.protocol for record in caplog.records if record.message == "call"} == {"http"}
    for series in ('responses_total{status="200"}', 'responses_total{status="400"}', 'refused_total{reason="malformed"}'):
        name = f"aligner_http_{series}"
        assert after[name] == before.get(name, 0) + 1, name
    assert 'aligner_connections_closed_total{protocol="http",reason="full"}' in after


async def test_a_call_in_flight_is_answered_while_the_server_stops() -> None:
    async with (
        serving(engine=ScriptedEngine(), http=HttpSettings(listen="127.0.0.1:0")) as server,
        http1(server.http_address) as client,
    ):
        server.engine.gate.clear()
        await client.send(request("POST", PATH, KIND, body=GOOD))
        await eventually(lambda: server.engine.started, "the engine to be reached")
        async with http1(server.http_address) as idle:
            await idle.send(INFO)
            assert (await idle.reply()).status == 200
            draining = asyncio.create_task(server.drain())
            assert await idle.closed()
        server.engine.gate.set()
        reply = await client.reply()
        assert (reply.status, reply.headers.get("connection")) == (200, "close")
        await draining
