"""What the guard chain costs: bare grpc.aio compared to the chain with one guard more a stage, in one server process.

    python -m bench.chain [--rounds N] [--kilobytes N]

There is no engine: the handler parses an AlignRequest and answers at once. Each stage has a port of its own; every round
measures all stages in turn, so that a slow phase of the machine affects all of them. `p50` is measured with calls one at a
time, `calls/s` with 32 in flight. `server CPU` is the server process's time for a call, without the client's. The token is
verified once and then found in the cache, as for every call of a client but its first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from grpc import aio

from aligner_client.api.v1 import aligner_pb2
from aligner_svc.rpc.request_facts import AudioEstimate
from aligner_svc.rpc.status import DOMAIN
from aligner_svc.telemetry.audit.log import AuditLog
from aligner_svc.telemetry.logs.pipeline import open_logs
from aligner_svc.telemetry.metrics import Metrics
from aligner_svc.wiring.auth import DEFAULT_POLICY
from interceptors import Audit, Authenticate, Authorise, Chain, HeaderLimits, Recovery, RequestId, Requests
from interceptors.abuse.interceptor import Abuse, AbuseRules
from interceptors.access_log import AccessLog
from interceptors.auth.jwt.access_token import TokenRules
from interceptors.auth.jwt.authenticator import JwtAuthenticator
from interceptors.auth.jwt.jwks import FileKeys
from interceptors.auth.policy import Policy
from interceptors.overload.admission import Priority
from interceptors.overload.interceptor import Overload
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.quota.classes_text import parse
from interceptors.quota.interceptor import Quota
from interceptors.quota.stores.base import QuotaStore
from interceptors.quota.stores.fallback import FallbackStore
from interceptors.quota.stores.memory import MemoryStore
from interceptors.quota.stores.redis_store import RedisStore
from interceptors.tracing.interceptor import Tracing
from interceptors.tracing.sampling import Sampling, SamplingRules

METHOD = "/aligner.v1.Aligner/Align"
ISSUER = "https://issuer.example.org"
IN_FLIGHT = 32
IN_REDIS = "quota in Redis"
SEEN, TRACED = "metrics, log", "traced, 10 %"
MAX_BYTES = 16 << 20


def null() -> grpc.GenericRpcHandler:
    """Align without an engine, registered as the generated code would."""

    async def align(request: aligner_pb2.AlignRequest, context: Any) -> aligner_pb2.AlignResponse:
        return aligner_pb2.AlignResponse(summary=aligner_pb2.Summary(audio_ms=len(request.audio)))

    service, _, name = METHOD[1:].rpartition("/")
    parse, write = aligner_pb2.AlignRequest.FromString, aligner_pb2.AlignResponse.SerializeToString
    return grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(align, parse, write)})


@dataclass
class Stage:
    """One server: its port while it runs, and its measurements. Times in seconds."""

    name: str
    port: int = 0
    p50: list[float] = field(default_factory=list)
    """One for each round, as all of these."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def stages(folder: Path, stack: AsyncExitStack) -> list[tuple[str, Sequence[aio.ServerInterceptor]]]:
    """The stages, each with one guard more. The innermost guard comes first, since the outer ones depend on it."""
    audit = AuditLog(folder / "audit.jsonl")
    stack.callback(audit.close)
    rules = TokenRules(ISSUER, frozenset({"aligner"}), frozenset({"RS256"}), 86_400.0, 30.0)
    tokens = JwtAuthenticator([(rules, FileKeys(folder / "jwks.json", 3600.0))], cache=1000)
    await tokens.start()
    stack.push_async_callback(tokens.close)
    served = {METHOD}
    text = files("aligner_svc.wiring").joinpath(DEFAULT_POLICY).read_text(encoding="utf-8")
    policy = Policy.parse(text, DEFAULT_POLICY, {METHOD, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"})
    abuse = Abuse(AbuseRules(), exempt=(), record=audit.record, trusted=())
    limit = AdaptiveLimit(LimitRules(initial=1000, highest=1000))
    memory = MemoryStore()
    quota = _quota(memory)
    guards: list[tuple[str, aio.ServerInterceptor]] = [
        ("recovery", Recovery(DOMAIN)),
        ("request id", RequestId()),
        ("audit", Audit(audit.record)),
        ("header limits", HeaderLimits(64, 8192)),
        (
            "authenticate",
            Authenticate([tokens], exempt=(), expiry_grace=3600.0, record=audit.record, domain=DOMAIN),
        ),
        ("authorise", Authorise(lambda: policy, served=served, exempt=(), dry_run=False, record=audit.record)),
        ("abuse", abuse),
        ("quota", quota),
        ("overload", Overload(limit, exempt=(), priority=lambda call: Priority.NORMAL)),
    ]
    metrics = Metrics({METHOD: "unary"}, quota_class=lambda call: "default")
    logs = open_logs("json", stream=stack.enter_context((folder / "log").open("w")))
    stack.callback(logs.close)
    tracing = Tracing(lambda trace: None, Sampling(SamplingRules(0.1)), served=served)
    grown: list[tuple[str, Sequence[aio.ServerInterceptor]]] = [("bare grpc.aio", ()), ("requests", (Requests(),))]
    for count, (name, _) in enumerate(guards, 1):
        grown.append((name, (*(guard for _, guard in guards[:count]), Requests())))
    seen: list[aio.ServerInterceptor] = [guard for _, guard in guards]
    counted = (*seen[:2], metrics.rpc, AccessLog(), *seen[2:], Requests(), metrics.rpc.messages)
    grown.append((SEEN, counted))
    grown.append((TRACED, (*counted[:2], tracing, *counted[2:])))
    if shutil.which("redis-server"):
        store = FallbackStore(RedisStore(stack.enter_context(redis(folder))), memory, 1)
        await store.start()
        stack.push_async_callback(store.close)
        grown.append((IN_REDIS, (*(_quota(store) if guard is quota else guard for _, guard in guards), Requests())))
    return grown


def _quota(store: QuotaStore) -> Quota:
    """Limits that are never reached, so that everything is counted and nothing refused."""
    limits = "requests_per_second = 1e9\nburst = 1e9\naudio_seconds_per_minute = 1e12\naudio_seconds_per_day = 1e15\n"
    slots = "bytes_per_minute = 1e15\ncalls_in_flight = 1000000\n"
    classes = parse(f"[classes.default]\n{limits}{slots}", "bench")
    return Quota(store, lambda: classes, estimate=AudioEstimate, streams=(), exempt=())


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of the bench's own on a unix socket; yields its URL."""
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait()


def serve(folder: str, pipe: Connection) -> None:
    """The server process: one port for each stage. Answers each message with its CPU seconds; ends when the pipe closes."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            ports = []
            for name, interceptors in await stages(Path(folder), stack):
                server = aio.server(
                    interceptors=(Chain(interceptors),) if interceptors else (),
                    options=[("grpc.max_receive_message_length", MAX_BYTES)],
                )
                server.add_generic_rpc_handlers((null(),))
                ports.append((name, server.add_insecure_port("127.0.0.1:0")))
                await server.start()
                stack.push_async_callback(server.stop, 0)
            pipe.send(ports)
            while await asyncio.to_thread(_asked, pipe):
                pipe.send(time.process_time())

    asyncio.run(run())


def _asked(pipe: Connection) -> bool:
    try:
        pipe.recv()
    except EOFError:
        return False
    return True


async def measure(stage: Stage, body: bytes, token: str, calls: int, pipe: Connection) -> None:
    """One round of one stage."""
    metadata = (("authorization", f"Bearer {token}"),)
    async with aio.insecure_channel(f"127.0.0.1:{stage.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD)
        for _ in range(20):
            await call(body, metadata=metadata)
        latencies = []
        for _ in range(calls):
            began = time.perf_counter()
            await call(body, metadata=metadata)
            latencies.append(time.perf_counter() - began)
        stage.p50.append(statistics.median(latencies))
        left = iter(range(calls * 2))
        before, began = _cpu(pipe), time.perf_counter()

        async def worker() -> None:
            for _ in left:
                await call(body, metadata=metadata)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        stage.rates.append(calls * 2 / (time.perf_counter() - began))
        stage.cpu.append((_cpu(pipe) - before) / (calls * 2))


def _cpu(pipe: Connection) -> float:
    pipe.send(None)
    seconds: float = pipe.recv()
    return seconds


def signed(folder: Path) -> str:
    """A token like an issuer's, and the issuer's keys in a file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | {"kid": "bench", "use": "sig", "alg": "RS256"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [public]}))
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "aligner",
        "sub": "bench",
        "client_id": "bench",
        "jti": "1",
        "iat": now,
        "exp": now + 3600,
        "scope": "align",
    }
    return jwt.encode(claims, key, "RS256", headers={"kid": "bench", "typ": "at+jwt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300, help="calls one at a time, a stage and round; twice as many in flight")
    parser.add_argument("--kilobytes", type=int, default=160, help="audio in a request")
    arguments = parser.parse_args()
    config = aligner_pb2.AlignConfig(transcript="What was said.", language="en")
    body = aligner_pb2.AlignRequest(config=config, audio=os.urandom(arguments.kilobytes * 1000)).SerializeToString()
    with TemporaryDirectory() as name:
        token = signed(Path(name))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=serve, args=(name, theirs), daemon=True)
        server.start()
        theirs.close()
        grown = [Stage(*named) for named in ours.recv()]
        for number in range(arguments.rounds):
            for stage in grown[number % len(grown) :] + grown[: number % len(grown)]:
                asyncio.run(measure(stage, body, token, arguments.calls, ours))
        ours.close()
        server.join()
    report(grown, arguments)


def report(grown: Sequence[Stage], arguments: argparse.Namespace) -> None:
    print(f"{arguments.kilobytes} kB requests, null engine, {arguments.rounds} rounds; each line includes the guards above it\n")
    columns = f"{'p50 us':>8} {'added':>7} {'in all':>7} {'calls/s':>9} {'over bare':>10} {'server CPU us':>14} {'over bare':>10}"
    print(f"{'':16} {columns}")
    # Compared within a round: both stages see the same drift of the machine.
    for index, stage in enumerate(grown):
        rate = statistics.median(ours / bare for ours, bare in zip(stage.rates, grown[0].rates, strict=True))
        cpu = statistics.median(ours / bare for ours, bare in zip(stage.cpu, grown[0].cpu, strict=True))
        print(
            f"{stage.name:16} {statistics.median(stage.p50) * 1e6:8.0f} {added(stage, grown[max(index - 1, 0)]):+7.0f} "
            f"{added(stage, grown[0]):+7.0f} {statistics.median(stage.rates):9.0f} "
            f"{rate:10.2f} {statistics.median(stage.cpu) * 1e6:14.0f} {cpu:10.2f}"
        )
    by_name = {stage.name: stage for stage in grown}
    before = {stage.name: one_before for one_before, stage in pairwise(grown)}
    known = by_name["authorise"]
    rate = statistics.median(ours / bare for ours, bare in zip(known.rates, grown[0].rates, strict=True))
    print(f"\nrecovery to authorise: p50 {added(known, grown[0]) / 1000:+.2f} ms (goal: 0.5 or less),", end=" ")
    print(f"throughput over bare {rate:.2f} (goal: 0.6 or more)")
    quota = added(by_name["quota"], before["quota"])
    print(f"quota in memory: p50 {quota:+.0f} us (goal: 50 or less)", end="")
    if IN_REDIS in by_name:
        # On top of the whole chain with the quota in memory, plus what that one adds.
        in_redis = quota + added(by_name[IN_REDIS], by_name["overload"])
        print(f"; in Redis, two round trips: {in_redis / 1000:+.2f} ms (goal: 0.5 or less)", end="")
    print()
    seen = added(by_name[SEEN], by_name["overload"]) + added(by_name["audit"], before["audit"])
    print(f"metrics, access line and audit: p50 {seen:+.0f} us (goal: 80 or less);", end=" ")
    print(f"tracing one call in ten adds: {added(by_name[TRACED], by_name[SEEN]):+.0f} us (goal: 60 or less)")


def added(stage: Stage, to: Stage) -> float:
    """Microseconds of p50, median of the rounds."""
    return statistics.median(ours - theirs for ours, theirs in zip(stage.p50, to.p50, strict=True)) * 1e6


if __name__ == "__main__":
    main()
