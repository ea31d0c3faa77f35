"""`make bench-overload`: how the service behaves under 1, 2, 5 and 10 times the load it has capacity for.

    python -m bench.overload [--quick] [--seconds N] [--rounds N] [--synthetic]

Two servers, one with the adaptive limit and one without, take turns. First their capacity is measured with calls that follow
one another; then calls arrive at random times at a multiple of it, independently of the answers to earlier ones, and without
retries. Each has one aligner and one decoder process, which leaves the clients one of two cores. The first quarter of every
phase does not count. A process of its own checks the health service. `others`: cores that other programs kept busy meanwhile.

`--synthetic`: the guards of this package on a bare gRPC server that sleeps in one of four slots. It shows the limit without the
aligner's variance, and what a refusal costs.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client.api.v1 import aligner_pb2
from bench.material import material
from bench.overload_server import QUEUE, synthetic
from bench.processes import cpu_seconds, memory, others_cpu_seconds, tree
from bench.service import service

METHOD = "/aligner.v1.Aligner/Align"
TIMES = (1, 2, 5, 10)
IN_FLIGHT = 6
"""Calls in flight that keep every slot of either server busy."""
DEADLINE = 60.0
PROBE_EVERY = 0.05
CLIP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under load."""

    name: str
    target: str
    pid: int


@dataclass(slots=True)
class Phase:
    """Results of one load on one server, in seconds. A call's latency is counted from its scheduled time."""

    times: float
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """Resident MB of the whole process tree, over time."""
    server_cpu: float = 0.0
    """CPU seconds of the listening process."""
    others: float = 0.0
    """CPU seconds of all other programs on the machine, warm-up included."""

    @property
    def goodput(self) -> float:
        return len(self.latencies) / self.seconds


def share(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


async def offer(subject: Subject, body: bytes, rate: float, phase: Phase, seconds: float) -> None:
    """Calls at random times, `rate` a second; those count that end after a quarter of the time and before its end."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    began = loop.time()
    first, last = began + seconds / 4, began + seconds
    phase.seconds += last - first

    async def one(due: float) -> None:
        outcome = await _outcome(align(body, timeout=DEADLINE))
        now = loop.time()
        if first <= now < last:
            if outcome:
                phase.refusals[outcome] += 1
            else:
                phase.latencies.append(now - due)

    async with aio.insecure_channel(subject.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        align: Any = channel.unary_unary(METHOD)
        calls: set[asyncio.Task[None]] = set()
        due = began
        before = None
        while (due := due + chance.expovariate(rate)) < last:
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            if before is None and due >= first:
                before = cpu_seconds([subject.pid])
            call = asyncio.create_task(one(due))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.sleep(max(0.0, last - loop.time()))
        phase.server_cpu += cpu_seconds([subject.pid]) - (before or 0.0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _outcome(call: Any) -> str:
    """The reason of the refusal; empty if the call was served."""
    try:
        await call
    except aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(info):
                return info.reason
        return error.code().name
    return ""


async def capacity(subject: Subject, body: bytes, seconds: float) -> float:
    """Calls a second of IN_FLIGHT callers that each wait for their answer; the first quarter of the time does not count."""
    loop = asyncio.get_running_loop()
    began, answered = loop.time(), []
    async with aio.insecure_channel(subject.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        align: Any = channel.unary_unary(METHOD)

        async def caller() -> None:
            while loop.time() < began + seconds:
                if outcome := await _outcome(align(body, timeout=DEADLINE)):
                    await asyncio.sleep(0.05)
                    raise_unless_busy(outcome)
                else:
                    answered.append(loop.time())

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    # From answer to answer, so that calls cut off at the edges of the measurement do not distort it.
    counted = [at for at in answered if at >= began + seconds / 4]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def raise_unless_busy(outcome: str) -> None:
    if outcome not in {"SERVER_OVERLOADED", "ENGINE_QUEUE_FULL"}:
        raise SystemExit(f"a call of the measurement failed: {outcome}")


def probe(target: str, pipe: Connection) -> None:
    """A process that checks health at fixed times until a message arrives, then sends the latency of each answer."""
    took = []
    with grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        pipe.send(None)
        due = time.perf_counter()
        while not pipe.poll(max(0.0, due - time.perf_counter())):
            began = time.perf_counter()
            try:
                stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
                took.append(time.perf_counter() - began)
            except grpc.RpcError:
                took.append(10.0)
            due = max(due + PROBE_EVERY, time.perf_counter())
    pipe.send(took)


@contextmanager
def probed(subject: Subject, phase: Phase) -> Iterator[None]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=probe, args=(subject.target, theirs))
    process.start()
    ours.recv()
    try:
        yield
    finally:
        ours.send(None)
        phase.health += ours.recv()
        process.join()


async def remember(subject: Subject, phase: Phase) -> None:
    """Resident memory, every second."""
    while True:
        phase.memory.append((await asyncio.to_thread(lambda: memory(tree(subject.pid)))).rss)
        await asyncio.sleep(1.0)


async def load(subject: Subject, body: bytes, rate: float, phase: Phase, seconds: float) -> None:
    watching = asyncio.create_task(remember(subject, phase))
    others = others_cpu_seconds()
    try:
        with probed(subject, phase):
            await offer(subject, body, rate, phase, seconds)
    finally:
        watching.cancel()
    phase.others += max(0.0, others_cpu_seconds() - others)
    await asyncio.sleep(2.0)  # cancelled calls may still be running


def line(phase: Phase, base: Phase | None) -> str:
    p50, p95 = (share(phase.latencies, part) * 1000 for part in (0.5, 0.95))
    health = [share(phase.health, part) * 1000 for part in (0.5, 0.95, 1.0)]
    # Served calls cost CPU too: what one costs at 1x is subtracted first.
    refused = sum(phase.refusals.values())
    cost = ""
    if base is not None and refused > 50 and base.latencies:
        served = base.server_cpu / len(base.latencies)
        cost = f"{(phase.server_cpu - served * len(phase.latencies)) / refused * 1e6:8.0f}"
    reasons = ", ".join(f"{reason} {count / phase.seconds:.1f}/s" for reason, count in phase.refusals.most_common()) or "none"
    size = f"{phase.memory[0]:5.0f} {phase.memory[-1]:5.0f} {max(phase.memory):5.0f}"
    return (
        f"{phase.times:4g}x {phase.goodput:9.2f} {p50:8.0f} {p95:8.0f} {health[0]:9.1f} {health[1]:7.1f} {health[2]:7.1f} "
        f"   {size} {phase.others / (phase.seconds * 4 / 3):6.2f} {cost:>9}  {reasons}"
    )


HEADER = (
    f"{'':5} {'goodput/s':>9} {'p50 ms':>8} {'p95 ms':>8} {'health ms: p50, p95, max':>25} "
    f"{'MB: first, last, max':>21} {'others':>6} {'us/refusal':>10}  refused"
)


def judge(name: str, value: float, unit: str, *, upper: float | None = None, lower: float | None = None) -> None:
    met = (upper is None or value <= upper) and (lower is None or value >= lower)
    goal = f"<= {upper:g}" if upper is not None else f">= {lower:g}"
    print(f"  {name:<52} {value:8.2f} {unit:<3} goal {goal:<8} {'ok' if met else 'MISSED'}")


def verdict(phases: list[Phase]) -> None:
    once, peak = phases[0], phases[-1]
    judge("goodput at the highest load over that at 1x", peak.goodput / once.goodput, "x", lower=0.9)
    judge("p95 of served calls over that at 1x", share(peak.latencies, 0.95) / share(once.latencies, 0.95), "x", upper=2.0)
    judge("health p95, worst phase", max(share(phase.health, 0.95) for phase in phases) * 1000, "ms", upper=50.0)
    judge("memory at the end over that after the first phase", peak.memory[-1] / once.memory[-1], "x", upper=1.1)


def audio() -> bytes:
    """An Align request with speech of about CLIP_SECONDS."""
    clip = min(material(40, 1.0).clips, key=lambda speech: abs(speech.seconds - CLIP_SECONDS))
    print(f"a call is {clip.seconds:.1f} s of speech, {len(clip.audio) / 1000:.0f} kB")
    config = aligner_pb2.AlignConfig(transcript=clip.text, language="en")
    return aligner_pb2.AlignRequest(config=config, audio=clip.audio).SerializeToString()


def subjects(stack: ExitStack, is_synthetic: bool) -> tuple[Subject, Subject]:
    """One server with the adaptive limit and one without."""
    made = []
    for name, adaptive in (("adaptive limit", True), ("no adaptive limit", False)):
        if is_synthetic:
            target, pid = stack.enter_context(synthetic(adaptive))
        else:
            settings = {"engine__workers": 1, "decode__workers": 1, "engine__queue": QUEUE}
            running = stack.enter_context(service(**settings, overload__adaptive=str(adaptive).lower()))
            target, pid = running.target, running.pid
        made.append(Subject(name, target, pid))
    return made[0], made[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of every phase")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions of everything, for machines that are shared")
    parser.add_argument("--quick", action="store_true", help="one round of 5 s a phase")
    parser.add_argument("--synthetic", action="store_true", help="the guards alone, no aligner")
    arguments = parser.parse_args()
    seconds, rounds = (5.0, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    body = os.urandom(160_000) if arguments.synthetic else audio()
    with ExitStack() as stack:
        pair = subjects(stack, arguments.synthetic)
        rates = [asyncio.run(capacity(subject, body, seconds)) for subject in pair]
        rate = max(rates)
        print(f"one at a time from {IN_FLIGHT} callers: {rates[0]:.1f} calls/s with the limit, {rates[1]:.1f} without")
        print(f"load average {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores; 1x is {rate:.1f} calls/s\n")
        phases = {subject.name: [Phase(times) for times in TIMES] for subject in pair}
        for _ in range(rounds):
            for number, times in enumerate(TIMES):
                for subject in pair:
                    asyncio.run(load(subject, body, rate * times, phases[subject.name][number], seconds))
        for name, measured in phases.items():
            print(f"{name}\n{HEADER}")
            for phase in measured:
                print(line(phase, None if phase is measured[0] else measured[0]))
            verdict(measured)
            print()


if __name__ == "__main__":
    main()
