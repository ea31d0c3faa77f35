"""Calls a server all the time as its load balancer and as a well-behaved caller, in a process of its own.

    python -m tests.attack.probe HOST:PORT CA.pem API_KEY_FILE

A line for each answer on stdout: health or align, the monotonic time in seconds, the milliseconds it took, and SERVING, OK, or
the reason or code of the refusal. Every tenth health check is over a new connection. Ends with its stdin.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client import Aligner, AlignerClientError, ApiKey, RetryPolicy, Tls
from tests.kit.recordings import SPEECH, TRANSCRIPT

_HEALTH_EVERY, _ALIGN_EVERY, _TIMEOUT, _NEW = 0.05, 1.0, 10.0, 10
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def main(target: str, ca: Path, key: Path) -> None:
    """`target` HOST:PORT."""
    target = f"localhost:{target.rpartition(':')[2]}"
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    aligning = threading.Thread(target=_align, args=(target, ca, key.read_text(), ended))
    aligning.start()
    _health(target, ca, ended)
    aligning.join()


def _health(target: str, ca: Path, ended: threading.Event) -> None:
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    channel, number = grpc.secure_channel(target, credentials, _OPTIONS), 0

    def check() -> str:
        try:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT).status
        except grpc.RpcError as error:
            return str(error.code().name)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    while not ended.wait(_HEALTH_EVERY):
        number += 1
        if number % _NEW == 0:
            channel.close()
            channel = grpc.secure_channel(target, credentials, _OPTIONS)
        _timed("health", check)
    channel.close()


def _align(target: str, ca: Path, key: str, ended: threading.Event) -> None:
    """Without retries, so that every refusal shows."""
    with Aligner(target, tls=Tls(ca=ca), auth=ApiKey(key), retry=RetryPolicy(attempts=1)) as aligner:

        def align() -> str:
            try:
                aligner.align(SPEECH, TRANSCRIPT, timeout=60.0)
            except AlignerClientError as error:
                return error.reason or type(error).__name__
            return "OK"

        while not ended.wait(_ALIGN_EVERY):
            _timed("align", align)


def _timed(what: str, call: Callable[[], str]) -> None:
    began = time.monotonic()
    result = call()
    sys.stdout.write(f"{what} {began:.3f} {(time.monotonic() - began) * 1000:.1f} {result}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
