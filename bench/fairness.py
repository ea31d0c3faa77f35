"""`make bench-fairness`: how one client that requests 50 times its share affects nine that stay within theirs.

    python -m bench.fairness [--seconds N] [--rounds N] [--times N] [--engine pocketsphinx] [--quick]

Two servers of the prod profile take turns, one with quotas and one without; both have the adaptive limit. First their capacity
is measured with calls that follow one another: C calls a second. Ten shares together are 0.8 C, since a server without spare
capacity has none left for refusals; a client may have a burst of 3 s of its share and 8 calls in flight. Each of the nine calls
at random times, at half of its share. The greedy client, a process of its own, requests 50 shares (`--times`), four times the
server's capacity, at random times; it does not wait for answers and goes on after refusals. Every client has a token. Phases
without it and with it alternate, the order of the servers changes from round to round, and all calls of a phase count, the
first ones included. `--times 1` shows how a tenth client that keeps to its share affects the others.

By default the engine sleeps for 0.1 s in one of four slots, which removes the aligner's variance; everything before it is the
real server. With `--engine pocketsphinx` the aligner shares the cores with the refusals and with the greedy client's process,
and what it loses to both counts as well. A call's latency is counted from its scheduled time. `others`: cores that other
programs kept busy; where that is a whole core, p95 depends on them.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from aligner_client.api.v1 import aligner_pb2
from bench.fairness_server import SLOTS, serve, tokens
from bench.gold import RATE
from bench.material import flac, material
from bench.overload import share
from bench.processes import cpu_seconds, others_cpu_seconds

METHOD = "/aligner.v1.Aligner/Align"
MODEST = 9
SOLD = 0.8
"""Share of the capacity that ten clients get together."""
BURST = 3.0
"""Seconds of its share that a client may use at once: random calls at half of it do not exhaust that."""
IN_FLIGHT = 6
"""Calls in flight that keep every slot busy."""
DEADLINE = 30.0
_NO_LIMITS = '[classes.default]\npriority = "normal"\n'
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


@dataclass(frozen=True, slots=True)
class Client:
    token: str
    rate: float
    """Calls a second."""


@dataclass(slots=True)
class Phase:
    """Results of some clients' calls. Latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        return len(self.latencies) + self.refusals.total()

    def add(self, other: Phase) -> None:
        self.latencies += other.latencies
        self.refusals += other.refusals


@dataclass(slots=True)
class Measured:
    """Results of one server: the nine alone, the nine beside the greedy client, and that client itself."""

    name: str
    target: str
    pid: int
    alone: Phase = field(default_factory=Phase)
    beside: Phase = field(default_factory=Phase)
    greedy: Phase = field(default_factory=Phase)
    growths: list[float] = field(default_factory=list)
    """p95 of the nine beside it divided by that of the nine alone, in each round."""
    cpu: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds of the listening process: in phases without the greedy client, and with it."""
    greedy_cpu: float = 0.0
    """Seconds of the greedy client's process."""


@contextmanager
def serving(folder: Path, name: str, quotas: str, engine: str) -> Iterator[Measured]:
    file = folder / f"{name.replace(' ', '_')}.toml"
    file.write_text(quotas)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(str(folder), str(file), engine, theirs))
    process.start()
    theirs.close()
    try:
        assert process.pid is not None
        yield Measured(name, ours.recv(), process.pid)
    finally:
        ours.close()
        process.join()


async def capacity(target: str, token: str, body: bytes, seconds: float) -> float:
    """Calls a second of IN_FLIGHT callers that each wait for their answer; the first quarter of the time does not count."""
    loop = asyncio.get_running_loop()
    began, answered = loop.time(), []
    async with aio.insecure_channel(target, options=_OPTIONS) as channel:

        async def caller() -> None:
            while loop.time() < began + seconds:
                if refused := await _outcome(channel, token, body):
                    raise SystemExit(f"a call of the measurement failed: {refused}")
                answered.append(loop.time())

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    counted = [at for at in answered if at >= began + seconds / 4]
    return (len(counted) - 1) / (counted[-1] - counted[0])


async def offer(target: str, clients: Sequence[Client], body: bytes, seconds: float, seed: int) -> Phase:
    """Calls of every client at random times, each client with its own connection and token. Returns when all are answered."""
    phase, loop = Phase(), asyncio.get_running_loop()

    async def one(channel: aio.Channel, token: str, due: float) -> None:
        outcome = await _outcome(channel, token, body)
        if outcome:
            phase.refusals[outcome] += 1
        else:
            phase.latencies.append(loop.time() - due)

    async def run(number: int, client: Client) -> None:
        chance = random.Random(seed * 100 + number)
        async with aio.insecure_channel(target, options=_OPTIONS) as channel:
            await channel.channel_ready()
            calls: set[asyncio.Task[None]] = set()
            due = began = loop.time()
            while (due := due + chance.expovariate(client.rate)) < began + seconds:
                if (pause := due - loop.time()) > 0:
                    await asyncio.sleep(pause)
                call = asyncio.create_task(one(channel, client.token, due))
                calls.add(call)
                call.add_done_callback(calls.discard)
            await asyncio.sleep(max(0.0, began + seconds - loop.time()))
            await asyncio.gather(*calls)

    await asyncio.gather(*(run(number, client) for number, client in enumerate(clients)))
    return phase


async def _outcome(channel: aio.Channel, token: str, body: bytes) -> str:
    """The reason of the refusal; empty if the call was served."""
    try:
        await channel.unary_unary(METHOD)(body, metadata=(("authorization", f"Bearer {token}"),), timeout=DEADLINE)
    except aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        trailing = dict(error.trailing_metadata() or ())
        for detail in status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(info):
                return info.reason
        return error.code().name
    return ""


def be_greedy(target: str, client: Client, body: bytes, seconds: float, pipe: Connection) -> None:
    """The greedy client's process; starts when a message arrives on the pipe."""
    pipe.send(None)
    pipe.recv()
    pipe.send(asyncio.run(offer(target, [client], body, seconds, seed=99)))
    pipe.recv()  # stay alive until the CPU time has been read


def both(measured: Measured, nine: Sequence[Client], greedy: Client, body: bytes, *, seconds: float, seed: int) -> None:
    """A phase without the greedy client and one with it; the nine call at the same times in both."""
    used = [cpu_seconds([measured.pid])]
    alone = asyncio.run(offer(measured.target, nine, body, seconds, seed))
    used.append(cpu_seconds([measured.pid]))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=be_greedy, args=(measured.target, greedy, body, seconds, theirs))
    process.start()
    ours.recv()
    assert process.pid is not None
    started = cpu_seconds([process.pid])
    ours.send(None)
    beside = asyncio.run(offer(measured.target, nine, body, seconds, seed))
    measured.greedy.add(ours.recv())
    measured.greedy_cpu += cpu_seconds([process.pid]) - started
    ours.send(None)
    process.join()
    used.append(cpu_seconds([measured.pid]))
    measured.cpu = [before + more for before, more in zip(measured.cpu, (used[1] - used[0], used[2] - used[1]), strict=True)]
    measured.alone.add(alone)
    measured.beside.add(beside)
    measured.growths.append(share(beside.latencies, 0.95) / share(alone.latencies, 0.95))
    time.sleep(1.0)


def audio(engine: str) -> bytes:
    """An Align request: a second of noise for the sleeping engine, else a clip of some 5 s."""
    if engine == "slots":
        noise = np.random.default_rng(1).integers(-2000, 2000, RATE).astype(np.int16)
        text, encoded = "a word or two", flac(noise)
    else:
        clip = min(material(40, 1.0).clips, key=lambda speech: abs(speech.seconds - 3))
        text, encoded = clip.text, clip.audio
        print(f"a call is {clip.seconds:.1f} s of speech")
    config = aligner_pb2.AlignConfig(transcript=text, language="en")
    return aligner_pb2.AlignRequest(config=config, audio=encoded).SerializeToString()


def line(name: str, phase: Phase, seconds: float) -> str:
    p50, p95 = (share(phase.latencies, part) * 1000 for part in (0.5, 0.95))
    served, refused = len(phase.latencies), phase.refusals.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in phase.refusals.most_common()) or "none"
    return f"  {name:24} {phase.calls / seconds:8.1f} {served / seconds:8.1f} {p50:8.0f} {p95:8.0f} {refused:8}  {reasons}"


def report(measured: Measured, seconds: float) -> None:
    print(f"{measured.name}\n  {'':24} {'sent/s':>8} {'served/s':>8} {'p50 ms':>8} {'p95 ms':>8} {'refused':>8}")
    print(line(f"{MODEST} alone", measured.alone, seconds))
    print(line(f"{MODEST} beside the greedy", measured.beside, seconds))
    print(line("the greedy", measured.greedy, seconds))
    pooled = share(measured.beside.latencies, 0.95) / share(measured.alone.latencies, 0.95)
    each = " ".join(f"{growth:.2f}" for growth in measured.growths)
    middle = statistics.median(measured.growths)
    print(f"  p95 of the nine grows by {pooled:.2f}x, all rounds together; median round {middle:.2f}x ({each})")
    alone, beside = (used / seconds for used in measured.cpu)
    print(
        f"  CPU of the listening process: {alone:.2f} cores with the nine alone, {beside:.2f} beside the greedy, "
        f"which itself takes {measured.greedy_cpu / seconds:.2f}\n"
    )


def verdict(measured: Measured) -> bool:
    """Whether the quotas protected the nine."""
    refused = measured.alone.refusals.total() + measured.beside.refusals.total()
    growth = share(measured.beside.latencies, 0.95) / share(measured.alone.latencies, 0.95)
    goals = (("calls of the nine refused", float(refused), 0.0), ("p95 of the nine, beside over alone", growth, 1.5))
    for name, value, bound in goals:
        print(f"  {name:40} {value:8.2f}  goal <= {bound:g}  {'ok' if value <= bound else 'MISSED'}")
    return all(value <= bound for _, value, bound in goals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of every phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=float, default=50.0, help="what the greedy client requests, in shares")
    parser.add_argument("--engine", choices=("slots", "pocketsphinx"), default="slots")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of 5 s a phase, to see it run: the initial burst weighs too much for a verdict",
    )
    arguments = parser.parse_args()
    seconds, rounds = (5.0, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    body = audio(arguments.engine)
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        of = tokens(folder, [*(f"modest-{number}" for number in range(MODEST)), "greedy"])
        without = stack.enter_context(serving(folder, "without quotas", _NO_LIMITS, arguments.engine))
        can = asyncio.run(capacity(without.target, of["greedy"], body, seconds))
        fair = SOLD * can / (MODEST + 1)
        limits = f"requests_per_second = {fair:.6f}\nburst = {max(1.0, BURST * fair):.6f}\ncalls_in_flight = {2 * SLOTS}\n"
        quotas = stack.enter_context(serving(folder, "with quotas", f"{_NO_LIMITS}{limits}", arguments.engine))
        nine = [Client(of[f"modest-{number}"], fair / 2) for number in range(MODEST)]
        greedy = Client(of["greedy"], arguments.times * fair)
        print(f"capacity: {can:.1f} calls/s; a share is {fair:.2f}/s, each of the nine sends {nine[0].rate:.2f}/s")
        print(
            f"load average {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores; {rounds} rounds of {seconds:g} s\n"
        )
        began, others = time.monotonic(), others_cpu_seconds()
        for number in range(rounds):
            for measured in (quotas, without) if number % 2 == 0 else (without, quotas):
                both(measured, nine, greedy, body, seconds=seconds, seed=number)
        busy = (others_cpu_seconds() - others) / (time.monotonic() - began)
        for measured in (quotas, without):
            report(measured, seconds * rounds)
    print(f"others: {max(0.0, busy):.2f} cores. With quotas:")
    raise SystemExit(0 if verdict(quotas) else 1)


if __name__ == "__main__":
    main()
