"""One mixed run: what the callers counted is what metrics, the log, traces and the audit log say, call by call."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import grpc
import pytest

from aligner_client import AsyncAligner, BearerToken, InvalidArgumentError, Tls
from aligner_client.api.v1 import aligner_pb2
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.protection import AntivirusSettings, QuotaSettings
from aligner_svc.config.telemetry import TracingSettings
from interceptors.metrics import CODES
from tests.e2e.test_metrics import METRICS, scraped
from tests.kit.clamd_server import EICAR, ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.guarded import Home, bearer, info, port_of, with_key
from tests.kit.otlp_receiver import OtlpReceiver
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.waiting import eventually

CONFIG = aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en")
ALIGN = aligner_pb2.AlignRequest(config=CONFIG, audio=SPEECH)
Code = grpc.StatusCode


@pytest.fixture
def lines():
    """The access lines, as they are logged."""
    seen: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger, handler = logging.getLogger("interceptors.access_log"), Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield seen
    logger.setLevel(level)
    logger.removeHandler(handler)


async def test_everybody_counted_the_same(tmp_path, lines: list[logging.LogRecord], clamav: ClamdServer) -> None:  # noqa: F811
    home = Home(tmp_path, methods=("jwt", "api_key"), mtls=False)
    key_quota = '[classes.default]\n[classes.small]\nrequests_per_second = 0.001\nburst = 1\n[principals]\n"key:*" = "small"\n'
    home.quotas.write_text(key_quota)
    antivirus = AntivirusSettings(address=clamav.address("unix"), stream_max_bytes=12 << 20)
    seen: Counter[Code] = Counter()
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=1.0)
        parts = {"metrics": METRICS, "tracing": tracing, "antivirus": antivirus, "quota": QuotaSettings(file=home.quotas)}
        async with home.serving(**parts) as running, home.connect(running) as channel:
            stub, engine = AlignerStub(channel), running.engine
            good = [bearer(home.forge.token())]

            async def count(call, wanted: Code) -> None:
                assert await call.code() is wanted
                seen[wanted] += 1

            for _ in range(3):
                await count(stub.Align(ALIGN, metadata=good), Code.OK)
            await count(info(channel, bearer("unknown")), Code.UNAUTHENTICATED)
            unscoped = home.forge.token(home.forge.claims(scope=None))
            await count(info(channel, bearer(unscoped)), Code.PERMISSION_DENIED)
            await count(channel.unary_unary("/aligner.v1.Aligner/Nothing")(b"", metadata=good), Code.UNIMPLEMENTED)
            key = await home.new_key("align")
            await count(info(channel, with_key(key)), Code.OK)
            await count(info(channel, with_key(key)), Code.RESOURCE_EXHAUSTED)
            infected = aligner_pb2.AlignRequest(config=CONFIG, audio=SPEECH + EICAR)
            await count(stub.Align(infected, metadata=good), Code.INVALID_ARGUMENT)
            engine.error = RuntimeError("a bug")
            await count(stub.Align(ALIGN, metadata=good), Code.INTERNAL)
            engine.error = None
            auth = BearerToken(home.forge.token())
            target = f"localhost:{port_of(running)}"
            async with AsyncAligner(target, tls=Tls(ca=tmp_path / "ca.pem"), auth=auth) as aligner:
                assert (await aligner.stream_align(SPEECH, TRANSCRIPT)).words
                seen[Code.OK] += 1
                with pytest.raises(InvalidArgumentError):
                    await aligner.stream_align(b"no audio at all, but long enough", TRANSCRIPT)
                seen[Code.INVALID_ARGUMENT] += 1
            engine.gate.clear()
            held = stub.Align(ALIGN, metadata=good)
            await eventually(lambda: len(engine.started) == 6, "the call to be at work")
            held.cancel()
            seen[Code.CANCELLED] += 1
            await eventually(lambda: engine.cancelled == 1, "the server to see it cancelled")
            await count(stub.Align(ALIGN, metadata=good, timeout=2.0), Code.DEADLINE_EXCEEDED)
            await eventually(lambda: engine.cancelled == 2, "the server to see the deadline")
            engine.gate.set()
            await eventually(lambda: len(lines) == sum(seen.values()), "a line for every call")
            values = await scraped(running)
        await collector.until(lambda now: len(spans(now)) == sum(seen.values()))
        traced = Counter(span.attributes["rpc.response.status_code"] for span in spans(collector))
    by_name = {code.name: number for code, number in seen.items()}
    assert Counter(line.code for line in lines) == by_name
    assert traced == by_name
    measured: Counter[str] = Counter()
    for labels, value in values["grpc_server_handled_total"].items():
        if value:
            [code] = set(labels) & set(CODES.values())
            measured[code] += int(value)
    assert measured == {CODES[code]: number for code, number in seen.items()}
    audited = Counter(event["event"] for event in home.events())
    assert audited == {"authentication_failed": 1, "authorisation_denied": 1, "malware_found": 1, "server_error": 1}


async def test_a_slow_stage_is_named_alike_everywhere(lines: list[logging.LogRecord], clamav: ClamdServer) -> None:  # noqa: F811
    """Clamd is stopped for a second: answer, log line and trace name the scan, and its time within 5 % of each other."""
    antivirus = AntivirusSettings(address=clamav.address("unix"), stream_max_bytes=12 << 20, timeout=30.0, scan_timeout=30.0)
    async with OtlpReceiver().serving() as collector:
        tracing = TracingSettings(endpoint=collector.endpoint, ratio=1.0)
        async with (
            serving(engine=ScriptedEngine(), antivirus=antivirus, tracing=tracing) as running,
            calling(running.address) as stub,
        ):
            clamav.pause()
            try:
                call = asyncio.ensure_future(stub.Align(ALIGN))
                await asyncio.sleep(1.0)
            finally:
                clamav.resume()
            timing = (await call).summary.timing
            await eventually(lambda: bool(lines), "the line")
        await collector.until(lambda now: "scan" in {span.name for span in now.spans})
        scan, whole = collector.named("scan"), collector.named("aligner.v1.Aligner/Align")
    reported = {
        "answer": timing.scan_ms,
        "line": lines[0].stages_ms["scan"],
        "trace": (scan.ended - scan.began) / 1e6,
    }
    assert max(reported.values()) <= 1.05 * min(reported.values()), reported
    assert max(lines[0].stages_ms, key=lines[0].stages_ms.get) == "scan"
    assert timing.total_ms >= timing.scan_ms >= 500
    assert scan.parent == whole.span


def spans(collector: OtlpReceiver) -> list:
    """Of calls."""
    return [span for span in collector.spans if span.kind == "SERVER"]
