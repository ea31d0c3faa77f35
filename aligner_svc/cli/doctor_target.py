"""The check of a running server: whether it can be reached, is healthy and has the version of this client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client import AlignerClientError
from aligner_client.channel import choose_transport
from aligner_client.errors import from_rpc
from aligner_svc import __version__
from aligner_svc.cli.failures import Failure, from_client
from aligner_svc.health import phrases as words
from aligner_svc.health.findings import Finding, Severity, fail, ok, warn

if TYPE_CHECKING:
    from aligner_svc.cli.server_options import Connection

_WAIT_TIMEOUT = 4.0


async def target(connection: Connection) -> Sequence[Finding]:
    """Check the health, which needs no credentials, and then the version."""
    found = [await _health(connection)]
    if found[0].severity is Severity.FAIL:
        return found
    try:
        began = time.perf_counter()
        async with connection.open_async() as aligner:
            info = await aligner.server_info(timeout=_WAIT_TIMEOUT)
    except AlignerClientError as error:
        failure = from_client(error, "it is up but gives no information", connection.target)
        return [*found, fail("target", f"{failure.what}: {failure.why}", failure.hint)]
    except (Failure, OSError) as error:
        return [*found, fail("target", f"{connection.target}: {error}", getattr(error, "hint", ""))]
    took = time.perf_counter() - began
    message = f"version {info.version}, engine {info.engine}, {len(info.languages)} languages, {took * 1000:.0f} ms"
    if info.version.split(".")[:2] != __version__.split(".")[:2]:
        hint = "install the same version: an older client does not understand everything a newer server sends"
        return [*found, warn("target", f"{message}; this client has version {__version__}", hint)]
    return [*found, ok("target", message)]


async def _health(connection: Connection) -> Finding:
    where = connection.target
    try:
        transport = choose_transport(where, None, connection.tls, None, ())
    except (ValueError, OSError) as error:
        return fail("target", f"{where}: {error}", "see --tls, --ca, --cert and --key")
    channel = (
        grpc.aio.insecure_channel(where, transport.options)
        if transport.credentials is None
        else grpc.aio.secure_channel(where, transport.credentials, transport.options)
    )
    try:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # the annotations lack its methods
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_WAIT_TIMEOUT)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return warn("target", f"{where} has no health service", "check that it is an aligner server")
        failure = from_client(from_rpc(error), f"{where} does not answer", where)
        return fail("target", f"{failure.what}: {failure.why}", failure.hint)
    finally:
        await channel.close()
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ok("target", f"{where} is SERVING")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return warn("target", f"{where} is {status}", words.NOT_SERVING)
