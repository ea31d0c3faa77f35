"""grpcurl, a third-party client, with nothing but what reflection tells it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests import PROJECT
from tests.kit.recordings import WORDS
from tests.kit.servers import environment

_BESIDE = Path(sys.executable).with_name("grpcurl")
GRPCURL = str(_BESIDE) if _BESIDE.exists() else shutil.which("grpcurl")

pytestmark = pytest.mark.skipif(GRPCURL is None, reason="needs grpcurl")


async def run(*command: object, stdin: bytes = b"") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    out, err = await process.communicate(stdin)
    return process.returncode, out.decode(), err.decode()


async def grpcurl(*arguments: object, stdin: bytes = b"") -> str:
    status, out, err = await run(GRPCURL, "-plaintext", *arguments, stdin=stdin)
    assert status == 0, err
    return out


async def test_list(server):
    assert {"aligner.v1.Aligner", "grpc.health.v1.Health"} <= set((await grpcurl(server.address, "list")).split())
    methods = (await grpcurl(server.address, "list", "aligner.v1.Aligner")).split()
    assert methods == [f"aligner.v1.Aligner.{name}" for name in ("Align", "GetServerInfo", "StreamAlign")]


async def test_describe(server):
    described = await grpcurl(server.address, "describe", "aligner.v1.Aligner")
    assert (
        "rpc StreamAlign ( stream .aligner.v1.StreamAlignRequest ) returns ( stream .aligner.v1.StreamAlignResponse );"
        in described
    )
    assert "uint32 char_start = 6;" in await grpcurl(server.address, "describe", "aligner.v1.Word")


async def test_server_info_and_health(server):
    info = json.loads(await grpcurl(server.address, "aligner.v1.Aligner/GetServerInfo"))
    assert "en" in info["languages"]
    assert info["limits"]["unaryAudioBytes"] == str(10 << 20)
    assert json.loads(await grpcurl(server.address, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}


async def test_the_sample_as_the_readme_has_it(server):
    status, request, err = await run(sys.executable, PROJECT / "samples" / "request.py")
    assert status == 0, err
    out = await grpcurl("-d", "@", server.address, "aligner.v1.Aligner/Align", stdin=request.encode())
    answer = json.loads(out)
    assert [word["text"] for word in answer["words"]] == list(WORDS)
    assert {word["status"] for word in answer["words"]} == {"WORD_STATUS_ALIGNED"}
    assert answer["summary"]["language"] == "en"


async def test_a_stream_as_the_samples_have_it(server):
    status, messages, err = await run(sys.executable, PROJECT / "samples" / "stream_request.py")
    assert status == 0, err
    out = await grpcurl("-d", "@", server.address, "aligner.v1.Aligner/StreamAlign", stdin=messages.encode())
    answers = json.loads("[" + out.replace("}\n{", "},{") + "]")
    assert [word["text"] for answer in answers for word in answer.get("words", {}).get("words", [])] == list(WORDS)
    assert list(answers[-1]) == ["summary"]
    assert len(messages.splitlines()) > 2


async def test_the_descriptor_set_names_everything_as_reflection_does(server):
    _, request, _ = await run(sys.executable, PROJECT / "samples" / "request.py")
    told = ("-protoset", PROJECT / "protos" / "aligner.protoset")
    answers = [
        json.loads(await grpcurl(*how, "-d", "@", server.address, "aligner.v1.Aligner/Align", stdin=request.encode()))
        for how in ((), told)
    ]
    assert [word["startMs"] for word in answers[0]["words"]] == [word["startMs"] for word in answers[1]["words"]]
    assert set(answers[0]["summary"]) == set(answers[1]["summary"])
    assert json.loads(await grpcurl(*told, server.address, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}


async def test_a_refusal_with_its_details(server):
    status, _, err = await run(
        GRPCURL,
        "-plaintext",
        "-d",
        '{"config": {"transcript": "a", "language": "it"}}',
        server.address,
        "aligner.v1.Aligner/Align",
    )
    assert status != 0
    assert "FailedPrecondition" in err
    assert "LANGUAGE_UNSUPPORTED" in err
