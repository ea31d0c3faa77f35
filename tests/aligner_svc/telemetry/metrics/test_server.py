"""The metrics endpoint: formats, readiness, and limits for its clients."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from aligner_svc.telemetry.metrics import Metrics, Sources
from aligner_svc.telemetry.metrics import server as metrics_server
from aligner_svc.telemetry.metrics.server import MetricsServer, MetricsServerError
from tests.kit.waiting import eventually

OPEN = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5"
)
"""Prometheus's Accept header."""


def metrics() -> Metrics:
    return Metrics({"/test.Service/Method": "unary"})


@asynccontextmanager
async def serving(found: Metrics | None = None) -> AsyncIterator[MetricsServer]:
    server = MetricsServer(found or metrics(), "127.0.0.1", 0)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: MetricsServer, raw: bytes) -> bytes:
    """Everything the server sends on a new connection until it closes it."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_the_format_follows_the_accept_header() -> None:
    async with serving() as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        old = await client.get("/metrics")
        new = await client.get("/metrics", headers={"accept": OPEN})
    assert old.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert new.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert new.text.endswith("# EOF\n")
    assert "# EOF" not in old.text
    names = {family.name for family in plain(old.text)}
    assert "grpc_server_handled" in names
    assert {family.name for family in openmetrics(new.text)} == names


async def test_metrics_are_compressed_for_clients_that_accept_gzip() -> None:
    async with serving() as server:
        head, _, body = (await ask(server, _get("accept-encoding: gzip"))).partition(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head
        assert b"grpc_server_started_total" in gzip.decompress(body)
        head, _, body = (await ask(server, _get("accept-encoding: br, gzip;q=0"))).partition(b"\r\n\r\n")
        assert b"Content-Encoding" not in head
        assert b"grpc_server_started_total" in body


async def test_sources_are_read_at_every_scrape() -> None:
    found, places = metrics(), [0.0]
    found.watch(Sources(certificate_expires=lambda: places[0]))
    async with serving(found) as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        for places[0] in (3.0, 7.0):
            text = (await client.get("/metrics")).text
            assert f"aligner_certificate_expiry_timestamp_seconds {places[0]}" in text


async def test_readiness_is_read_at_every_probe_and_decides_the_status() -> None:
    answers = [(False, '{"ready": false}\n'), (True, '{"ready": true}\n'), (True, '{"ready": true}\n')]
    server = MetricsServer(metrics(), "127.0.0.1", 0, readiness=lambda: answers.pop(0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
            no, yes, head = await client.get("/ready"), await client.get("/ready"), await client.head("/ready")
    finally:
        await server.close()
    assert [answer.status_code for answer in (no, yes, head)] == [503, 200, 200]
    assert (no.json(), yes.json(), head.text) == ({"ready": False}, {"ready": True}, "")
    assert yes.headers["content-type"] == "application/json"
    assert yes.headers["cache-control"] == "no-store"


async def test_a_server_that_is_not_ready_is_live() -> None:
    """A liveness probe must not restart what drains or waits for a dependency."""
    async with serving() as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/live")).status_code == 200


async def test_a_connection_serves_several_scrapes() -> None:
    async with serving() as server:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(3):
            writer.write(b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert (await reader.read()).count(b"# HELP grpc_server_started_total") == 1
        writer.close()


def _get(*headers: str) -> bytes:
    return "\r\n".join(("GET /metrics HTTP/1.1", "host: x", "connection: close", *headers, "", "")).encode()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET /metrics?name=x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"200"),
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", b"405"),
        (b"POST /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", b"405"),
        (b"GET /ready/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", b"400"),
        (b"GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", b"400"),
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET http://x/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n folded: x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_other_requests_are_refused_with_their_status(raw, status) -> None:
    async with serving() as server:
        answer = await ask(server, raw)
        assert answer.split(b" ", 2)[1] == status
        assert (await ask(server, _get())).startswith(b"HTTP/1.1 200 OK")


async def test_clients_that_only_hold_connections_do_not_keep_a_probe_out() -> None:
    """32 silent ones blocked /ready for a minute. The one that has done nothing for the longest time goes."""
    async with serving() as server:
        host, _, port = server.address.rpartition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(metrics_server.MAX_CONNECTIONS)]
        for reader, writer in held[1:]:
            writer.write(b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        assert b"200" in await ask(server, _get())
        assert await held[0][0].read() == b""
        held[1][1].write(b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await held[1][0].readuntil(b"\r\n\r\n")
        for _, writer in held:
            writer.close()


async def test_connections_are_bounded() -> None:
    async with serving() as server:
        host, _, port = server.address.rpartition(":")
        many = [await asyncio.open_connection(host, int(port)) for _ in range(3 * metrics_server.MAX_CONNECTIONS)]
        assert b"200" in await ask(server, _get())
        await eventually(lambda: len(server._connections) <= metrics_server.MAX_CONNECTIONS, "the others to be closed")
        for _, writer in many:
            writer.close()


async def test_a_request_that_takes_too_long_is_dropped(monkeypatch) -> None:
    monkeypatch.setattr(metrics_server, "_REQUEST_TIMEOUT", 0.05)
    async with serving() as server:
        assert await ask(server, b"GET /metr") == b""


async def test_closing_ends_open_connections() -> None:
    server = MetricsServer(metrics(), "127.0.0.1", 0)
    await server.start()
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(server.close(), 30)
    await server.close()
    assert await reader.read() == b""
    writer.close()


async def test_the_error_for_a_port_in_use_names_it() -> None:
    async with serving() as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(MetricsServerError, match=f"127.0.0.1:{port}.*in use.*ALIGNER_METRICS__LISTEN"):
            await MetricsServer(metrics(), "127.0.0.1", port).start()


async def test_concurrent_scrapes_are_complete() -> None:
    async with serving() as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        answers = await asyncio.gather(*(client.get("/metrics", headers={"accept": OPEN}) for _ in range(20)))
    assert all(answer.text.endswith("# EOF\n") for answer in answers)
