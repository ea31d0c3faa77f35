"""POST /v1/audio/alignments and GET /v1/info: what is accepted, the answers, and what is refused and how."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.http import HttpSettings
from aligner_svc.config.limits import Limits
from aligner_svc.server import Service
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/audio/alignments"
ALIGN = "/aligner.v1.Aligner/Align"
FIELDS = {"text": TRANSCRIPT, "language": "en"}
FILE = {"file": ("speech.flac", SPEECH)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Service]:
    limits = Limits(unary_audio_bytes=1 << 20, transcript_chars=1000)
    async with serving(engine=ScriptedEngine(), limits=limits, http=HttpSettings(listen="127.0.0.1:0")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.http_address}", trust_env=False, timeout=20) as opened:
        yield opened


def as_json(audio: object = None, **config: object) -> dict[str, object]:
    given = base64.b64encode(SPEECH).decode() if audio is None else audio
    return {"config": {"transcript": TRANSCRIPT, "language": "en"} | config, "audio": given}


def reason(answer: httpx.Response, status: int) -> str:
    """Of an error with that status, in the one form that all have."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status), answer.text
    assert error["requestId"] == answer.headers["x-request-id"]
    assert error["details"][0]["reason"] == error["reason"]
    return error["reason"]


async def test_a_form_and_json_and_grpc_are_answered_alike(server, client) -> None:
    by_form = await client.post(PATH, files=FILE, data=FIELDS)
    by_json = await client.post(PATH, json=as_json())
    url_safe = base64.urlsafe_b64encode(SPEECH).decode().rstrip("=")
    connect = await client.post("/aligner.v1.Aligner/Align", json=as_json(url_safe))
    async with calling(server.address) as stub:
        by_grpc = await stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH))
    assert [word.text for word in by_grpc.words] == list(WORDS)
    for answer in (by_form, by_json, connect):
        found = json_format.Parse(answer.text, pb.AlignResponse())
        assert list(found.words) == list(by_grpc.words)
        assert answer.headers["content-type"] == "application/json"
        assert "startMs" in answer.json()["words"][0], "a time of 0 is there too"


async def test_a_form_takes_every_field_of_the_config(client) -> None:
    more = {"retiming": '{"max_shift_ms": 5}', "pronunciations": '{"wizard": "W IH Z ER D"}', "min_match_score": "0.1"}
    raw = {"file": ("a.raw", bytes(32_000))}
    numbers = {"encoding": "AUDIO_ENCODING_LINEAR16", "sample_rate_hz": "8000", "channels": "1", "audio_bytes": "32000"}
    answer = await client.post(PATH, files=raw, data={"text": "one two", "language": "en"} | numbers)
    assert answer.json()["summary"]["audioMs"] == 2000
    assert reason(await client.post(PATH, files=FILE, data=FIELDS | more), 400) == "PRONUNCIATIONS_UNSUPPORTED"


@pytest.mark.parametrize(("name", "kind", "begins"), [
    ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,000"), ("vtt", "text/vtt; charset=utf-8", "WEBVTT"),
    ("textgrid", "text/plain; charset=utf-8", "File type"), ("csv", "text/csv; charset=utf-8", ""),
])  # fmt: skip
async def test_the_answer_may_be_a_file(client, name, kind, begins) -> None:
    answer = await client.post(PATH, files=FILE, data=FIELDS | {"response_format": name})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.text.startswith(begins)


@pytest.mark.parametrize("name", ["html", "exe", "JSON", "../x", ""])
async def test_no_other_format(client, name) -> None:
    answer = await client.post(PATH, files=FILE, data=FIELDS | {"response_format": name})
    assert reason(answer, 400) == "MESSAGE_MALFORMED"


async def test_server_info(client) -> None:
    answer = await client.get("/v1/info", headers={"x-request-id": "mine"})
    assert answer.json()["engine"] == "scripted-1"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["cache-control"] == "no-store"


NESTED = '{"config":' * 3000 + "1" + "}" * 3000
MALFORMED = {
    "no JSON": "hello", "a list": "[]", "a name twice": '{"audio":"","audio":""}',
    "a name twice within": '{"config":{"language":"en","language":"de"}}', "NaN": '{"config":{"minMatchScore":NaN}}',
    "Infinity": '{"config":{"minMatchScore":Infinity}}', "nested objects": NESTED, "nested lists": "[" * 100_000,
    "an unknown field": '{"config":{},"shutdown":true}', "a number for a text": '{"config":{"language":7}}',
    "not base64": '{"audio":"!!!!"}', "padding within": '{"audio":"QQ==QQ=="}', "half a byte": '{"audio":"A"}',
    "junk within base64": '{"audio":"UklG\\nRg=="}', "audio as a list": '{"audio":[1,2]}',
    "a lone surrogate": '{"config":{"transcript":"\\ud800"}}', "values without end": '{"config":{"a":[' + "0," * 6000 + "0]}}",
    "a large number": '{"config":{"channels":1e400}}', "digits": '{"config":{"channels":' + "9" * 5000 + "}}",
    "not UTF-8": b'{"config":{"transcript":"\xff"}}', "UTF-16": "{}".encode("utf-16"),
    "a list of 5,000": '{"config":{"channelTranscripts":[' + "{}," * 5000 + "{}]}}",
    "cut": '{"config":{',
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_json_that_is_not_the_message_is_refused(client, body) -> None:
    for path in (PATH, "/aligner.v1.Aligner/Align"):
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        found = answer.json()
        assert answer.status_code == 400, answer.text
        assert found.get("error", found)["reason"] == "MESSAGE_MALFORMED"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/mixed",
                                  "application/json5", "multipart/form-data2", "*/*"])  # fmt: skip
async def test_bodies_of_another_kind_are_refused(client, kind) -> None:
    answer = await client.post(PATH, content=b"{}", headers={"content-type": kind})
    assert reason(answer, 415) == "CONTENT_TYPE_REFUSED"


async def test_a_method_is_asked_for_in_its_own_kind(client) -> None:
    for path, kind in (("StreamAlign", "application/json"), ("Align", "application/connect+json")):
        answer = await client.post(f"/aligner.v1.Aligner/{path}", content=b"{}", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["reason"]) == (415, "CONTENT_TYPE_REFUSED")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "x"])
async def test_compressed_bodies_are_refused(client, coding) -> None:
    answer = await client.post(PATH, json=as_json(), headers={"content-encoding": coding})
    assert reason(answer, 415) == "COMPRESSION_REFUSED"


async def test_connect_and_grpc_web_take_gzip_and_json(client) -> None:
    whole = json.dumps(as_json()).encode()
    message = json_format.ParseDict(as_json(), pb.AlignRequest()).SerializeToString()
    coded = {"content-encoding": "gzip"}
    for kind, body in (("json", whole), ("proto", message)):
        answer = await client.post(ALIGN, content=gzip.compress(body), headers=coded | {"content-type": f"application/{kind}"})
        assert answer.status_code == 200, answer.text
        bomb = gzip.compress(body + bytes(8 << 20))
        answer = await client.post(ALIGN, content=bomb, headers=coded | {"content-type": f"application/{kind}"})
        assert (answer.status_code, answer.json()["reason"]) == (413, "REQUEST_TOO_LARGE")
    answer = await client.post(ALIGN, content=whole, headers=coded | {"content-type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "MESSAGE_MALFORMED")
    info = {"content-type": "application/proto"}
    assert (await client.post("/aligner.v1.Aligner/GetServerInfo", content=b"", headers=coded | info)).status_code == 200

    packed = gzip.compress(message)
    body = b"\0" + len(whole).to_bytes(4, "big") + whole
    answer = await client.post(ALIGN, content=body, headers={"content-type": "application/grpc-web+json"})
    assert answer.headers["content-type"] == "application/grpc-web+json"
    assert json.loads(answer.content[5 : 5 + int.from_bytes(answer.content[1:5], "big")])["words"][0]["text"] == WORDS[0]
    web = {"content-type": "application/grpc-web+proto"}
    for encoding, status in (({"grpc-encoding": "gzip"}, b"grpc-status: 0"), ({}, b"grpc-status: 3")):
        body = b"\1" + len(packed).to_bytes(4, "big") + packed
        assert status in (await client.post(ALIGN, content=body, headers=web | encoding)).content


@pytest.mark.parametrize(("verb", "path", "status"), [
    ("GET", PATH, 405), ("PUT", PATH, 405), ("DELETE", PATH, 405), ("OPTIONS", PATH, 405), ("POST", "/v1/info", 405),
    ("POST", "/", 404), ("GET", "/openapi.json", 404), ("POST", PATH + "/", 404), ("POST", PATH + "?x=1", 404),
    ("POST", "/v1//audio/alignments", 404), ("POST", "/v1/audio/Alignments", 404), ("POST", "/v1/audio/%61lignments", 404),
    ("GET", "/aligner.v1.Aligner/Align", 404), ("POST", "/aligner.v1.Aligner/Shutdown", 404),
    ("POST", "/grpc.health.v1.Health/Check", 404),
])  # fmt: skip
async def test_other_paths_and_verbs_are_refused(client, verb, path, status) -> None:
    answer = await client.request(verb, path, headers={"x-http-method-override": "POST", "origin": "https://evil.example"})
    assert reason(answer, status) == "METHOD_UNKNOWN"
    assert ("allow" in answer.headers) == (status == 405)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_audio_over_the_limit_is_refused_and_the_next_is_served(client) -> None:
    for size in (1, 3 << 20):
        answer = await client.post(PATH, files={"file": ("a", bytes((1 << 20) + size))}, data=FIELDS)
        assert reason(answer, 413) in {"AUDIO_TOO_LARGE", "REQUEST_TOO_LARGE"}

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 16)

    answer = await client.post(PATH, content=endless(), headers={"content-type": "application/json"})
    assert reason(answer, 413) == "REQUEST_TOO_LARGE"
    assert (await client.post(PATH, files=FILE, data=FIELDS)).status_code == 200


async def test_a_body_in_chunks_of_a_byte_is_refused(client) -> None:
    async def tiny() -> AsyncIterator[bytes]:
        for _ in range(5000):
            yield b" "

    answer = await client.post(PATH, content=tiny(), headers={"content-type": "application/json"})
    assert reason(answer, 400) == "MESSAGE_MALFORMED"


async def test_a_time_of_the_callers_ends_the_call(server, client) -> None:
    server.engine.gate.clear()
    try:
        answer = await client.post(PATH, files=FILE, data=FIELDS, headers={"connect-timeout-ms": "300"})
    finally:
        server.engine.gate.set()
    assert reason(answer, 504) == "DEADLINE_EXPIRED"
    for bad in ("-1", "1e3", "soon", "9" * 30):
        answer = await client.post(PATH, files=FILE, data=FIELDS, headers={"connect-timeout-ms": bad})
        assert reason(answer, 400) == "MESSAGE_MALFORMED"
