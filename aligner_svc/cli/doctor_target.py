"""A server that runs: whether it can be reached from here, is healthy, and is of this client's version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_svc import __version__
from aligner_svc.cli.failures import Failure, from_client
from aligner_svc.client import AlignerClientError
from aligner_svc.client.channel import choose_transport
from aligner_svc.health import phrases as words
from aligner_svc.health.findings import Finding, Severity

if TYPE_CHECKING:
    from aligner_svc.cli.credentials import Connection

_WAIT_TIMEOUT = 4.0


async def target(connection: Connection) -> Sequence[Finding]:
    """Health first, which needs no proof of who calls, and then what the server says of itself."""
    found = [await _health(connection)]
    if found[0].severity is Severity.FAIL:
        return found
    try:
        began = time.perf_counter()
        async with connection.open_async() as aligner:
            info = await aligner.server_info(timeout=_WAIT_TIMEOUT)
    except AlignerClientError as error:
        failure = from_client(error, "it did not say what it is", connection.target)
        return [*found, Finding("target", Severity.FAIL, f"{failure.what}: {failure.why}", failure.hint)]
    except (Failure, OSError) as error:
        return [*found, Finding("target", Severity.FAIL, f"{connection.target}: {error}", getattr(error, "hint", ""))]
    took = time.perf_counter() - began
    said = f"version {info.version}, engine {info.engine}, {len(info.languages)} languages, {took * 1000:.0f} ms"
    if info.version.split(".")[:2] != __version__.split(".")[:2]:
        hint = "install the same one: an older client does not know what a newer server tells"
        return [*found, Finding("target", Severity.WARN, f"{said}; here is {__version__}", hint)]
    return [*found, Finding("target", Severity.OK, said)]


async def _health(connection: Connection) -> Finding:
    where = connection.target
    try:
        transport = choose_transport(where, None, connection.tls, None, ())
    except (ValueError, OSError) as error:
        return Finding("target", Severity.FAIL, f"{where}: {error}", "see --tls, --ca, --cert and --key")
    channel = (
        grpc.aio.insecure_channel(where, transport.options)
        if transport.credentials is None
        else grpc.aio.secure_channel(where, transport.credentials, transport.options)
    )
    try:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its annotations are without methods
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_WAIT_TIMEOUT)
    except grpc.aio.AioRpcError as error:
        return _unwell(error, where)
    finally:
        await channel.close()
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Finding("target", Severity.OK, f"{where} is SERVING")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Finding("target", Severity.WARN, f"{where} is {status}", words.NOT_SERVING)


def _unwell(error: grpc.aio.AioRpcError, where: str) -> Finding:
    from aligner_svc.client.errors import from_rpc  # noqa: PLC0415

    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Finding("target", Severity.WARN, f"{where} has no health service", "is it an aligner server?")
    failure = from_client(from_rpc(error), f"{where} does not answer", where)
    return Finding("target", Severity.FAIL, f"{failure.what}: {failure.why}", failure.hint)
