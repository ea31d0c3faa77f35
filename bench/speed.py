"""`make bench`: speed and memory on this machine, compared to the goals.

Everything is measured in one run, and the two sides of a comparison take turns, so that other load
on the machine slows both. The client runs on the same cores as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from aligner_client import Aligner, AsyncAligner
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config import Settings
from aligner_svc.domain import Alignment, Caller, Clip, Token
from aligner_svc.engines.base import EngineResult
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.text import tokenise
from bench.breakdown import breakdown
from bench.material import Material, Speech, material
from bench.processes import cpu_seconds, memory, others_cpu_seconds, tree, watched
from bench.service import Running, service

IN_FLIGHT = 8
"""Calls in flight for throughput: keeps two workers busy with a short queue."""
WAIT_TIMEOUT = 900.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """Amount of work: `clips` in a pass, `rounds` of alternating passes."""

    clips: int = 80
    long_seconds: float = 600.0
    starts: int = 5
    rounds: int = 4
    latency_rounds: int = 8


QUICK = Plan(clips=16, long_seconds=60.0, starts=2, rounds=2, latency_rounds=2)


def report(name: str, value: float, unit: str, *, upper: float | None = None, lower: float | None = None, more: str = "") -> None:
    goal = verdict = ""
    if upper is not None:
        goal, verdict = f"goal <= {upper:g}", "ok" if value <= upper else "MISSED"
    elif lower is not None:
        goal, verdict = f"goal >= {lower:g}", "ok" if value >= lower else "MISSED"
    print(f"  {name:<58} {value:9.4g} {unit:<10} {goal:<14} {verdict:<7}{more}".rstrip(), flush=True)


@contextmanager
def section(title: str) -> Iterator[None]:
    """Prints the share of the machine that other programs used: it makes the figures less reliable."""
    print(f"\n{title}", flush=True)
    began, others = time.perf_counter(), others_cpu_seconds()
    yield
    wall = time.perf_counter() - began
    busy = max(0.0, others_cpu_seconds() - others) / wall
    print(f"  ({wall:.0f} s; other programs kept {busy:.2f} of {_cores()} cores busy)", flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{_cores()} cores of {os.cpu_count()}, {model}, load average {load}"


@dataclass(frozen=True, slots=True)
class Bare:
    """The engine and the decoder without a service around them."""

    engine: PocketSphinxEngine
    decoder: Decoder

    async def decode(self, speech: Speech) -> Clip:
        return (await self.decoder.decode(speech.audio, Encoding.CONTAINER, 0, 0)).clip

    async def align(self, speech: Speech, tokens: Sequence[Token]) -> EngineResult:
        return await self.engine.align(await self.decode(speech), tokens, "en", Caller())


@asynccontextmanager
async def bare(workers: int) -> Iterator[Bare]:
    settings = Settings(engine={"workers": workers})
    parts = Bare(PocketSphinxEngine(settings.engine), Decoder(settings.decode, settings.limits))
    try:
        await asyncio.gather(parts.decoder.start(), parts.engine.start())
        yield parts
    finally:
        await asyncio.gather(parts.decoder.close(), parts.engine.close())


async def _all(work: Callable[[Speech], Awaitable[object]], clips: Sequence[Speech]) -> float:
    """Audio seconds a second, with IN_FLIGHT clips at a time."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(clip: Speech) -> None:
        async with slots:
            await work(clip)

    began = time.perf_counter()
    await asyncio.gather(*(one(clip) for clip in clips))
    return sum(clip.seconds for clip in clips) / (time.perf_counter() - began)


async def _alternate(
    first: Callable[[Speech], Awaitable[object]],
    second: Callable[[Speech], Awaitable[object]],
    clips: Sequence[Speech],
    rounds: int,
) -> tuple[list[float], list[float]]:
    """Rates of both, measured in turn after one warm-up pass each."""
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for side, work in enumerate((first, second)):
            rate = await _all(work, clips)
            if turn:
                rates[side].append(rate)
    return rates


def _report_ratio(name: str, over: Sequence[float], under: Sequence[float], goal: float) -> None:
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    report(name, median(ratios), "x", lower=goal, more=f"  {min(ratios):.2f}..{max(ratios):.2f} in {len(ratios)} rounds")


async def engine_cost(data: Material) -> None:
    """CPU time of fresh workers, whose caches are empty."""
    minutes = data.long.seconds / 60
    for name, recordings, goal in (
        (f"{len(data.clips)} clips, real-time factor per core", data.clips, 0.025),
        (f"a recording of {minutes:.1f} min, real-time factor per core", [data.long], 0.08),
    ):
        async with bare(1) as parts:
            clips = [await parts.decode(speech) for speech in recordings]
            tokens = [tokenise(speech.text, "en") for speech in recordings]
            before = cpu_seconds(parts.engine.short.pool.pids)
            results = [await parts.engine.align(clip, words, "en", Caller()) for clip, words in zip(clips, tokens, strict=True)]
            spent = cpu_seconds(parts.engine.short.pool.pids) - before
        audio = sum(clip.seconds for clip in clips)
        score = float(np.mean([result.match_score for result in results]))
        report(name, spent / audio, "CPU s/s", upper=goal, more=f"  match score {score:.2f}")
        parts_of = await asyncio.to_thread(breakdown, list(zip(clips, tokens, strict=True)))
        total = parts_of.total()
        shares = ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in parts_of.most_common() if seconds > 0.005 * total)
        print(f"      of which {shares}", flush=True)


def latency(data: Material, target: str, rounds: int) -> None:
    seconds = []
    with Aligner(target) as client:
        client.align(data.five_seconds[0].audio, data.five_seconds[0].text)
        for _ in range(rounds):
            for clip in data.five_seconds:
                began = time.perf_counter()
                client.align(clip.audio, clip.text)
                seconds.append(time.perf_counter() - began)
    audio = median(clip.seconds for clip in data.five_seconds)
    for share in (50, 95):
        name = f"clip of {audio:.1f} s through gRPC, one at a time, p{share}"
        report(name, float(np.percentile(seconds, share)) * 1000, "ms", more=f"  of {len(seconds)} calls")


async def workers(data: Material, one: Running, two: Running, rounds: int) -> None:
    async with AsyncAligner(one.target) as first, AsyncAligner(two.target) as second:
        slow, fast = await _alternate(_caller(first), _caller(second), data.clips, rounds)
    report("1 worker", median(slow), "audio s/s")
    report("2 workers", median(fast), "audio s/s")
    _report_ratio("2 workers over 1, all of it on the same cores", fast, slow, 1.8)
    tokens = {speech.text: tokenise(speech.text, "en") for speech in data.clips}
    async with bare(1) as single, bare(2) as double:
        decoded = {clip.text: await single.decode(clip) for clip in data.clips}
        slow, fast = await _alternate(
            lambda clip: single.engine.align(decoded[clip.text], tokens[clip.text], "en", Caller()),
            lambda clip: double.engine.align(decoded[clip.text], tokens[clip.text], "en", Caller()),
            data.clips,
            rounds,
        )
    _report_ratio("engine alone, without decoding, server and client", fast, slow, 1.8)
    ceilings = [_spin(2) / _spin(1) for _ in range(rounds)]
    report("two busy processes over one: the machine's own scaling", median(ceilings), "x")


def _spin(processes: int) -> float:
    """Loop passes a second, summed over `processes` that do nothing else."""
    code = "for _ in range(30_000_000): pass"
    began = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    for process in running:
        process.wait()
    return processes / (time.perf_counter() - began)


async def overhead(data: Material, two: Running, rounds: int) -> None:
    tokens = {speech.text: tokenise(speech.text, "en") for speech in data.clips}
    async with bare(2) as parts, AsyncAligner(two.target) as client:
        through, direct = await _alternate(_caller(client), lambda clip: parts.align(clip, tokens[clip.text]), data.clips, rounds)
    report("through gRPC, 2 workers", median(through), "audio s/s")
    report("decoder and engine called directly, 2 workers", median(direct), "audio s/s")
    _report_ratio("service over bare engine", through, direct, 0.9)


def _caller(client: AsyncAligner) -> Callable[[Speech], Awaitable[Alignment]]:
    return lambda clip: client.align(clip.audio, clip.text, timeout=WAIT_TIMEOUT)


def start_up(times: int) -> None:
    seconds = []
    for _ in range(times):
        with service() as running:
            seconds.append(running.seconds_to_ready)
    more = f"  {min(seconds):.1f}..{max(seconds):.1f}"
    report(f"process start to SERVING, median of {times}", median(seconds), "s", upper=3, more=more)


def footprint(data: Material) -> None:
    minutes = f"{data.long.seconds / 60:.1f} min"
    unary = max(len(data.long.audio), 10 << 20)  # TIMIT's hiss compresses badly
    with service(engine__workers=2, limits__unary_audio_bytes=unary) as running, Aligner(running.target) as client:
        idle = memory(tree(running.pid))
        peaks = []
        for call in (client.stream_align, client.align):
            with watched(running.pid) as seen:
                call(data.long.audio, data.long.text, timeout=WAIT_TIMEOUT)
            peaks.append(seen[-1])
    for kind in ("pss", "rss"):
        report(f"server and children, 2 workers, after start, {kind.upper()}", getattr(idle, kind), "MB", upper=500)
        for name, peak in zip(("StreamAlign", "Align"), peaks, strict=True):
            report(f"peak while {name} aligns {minutes}, {kind.upper()}", getattr(peak, kind), "MB", upper=500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or two: fewer measurements, 1 min of audio instead of 10")
    plan = QUICK if parser.parse_args().quick else Plan()
    print(f"machine: {_machine()}")
    data = material(plan.clips, plan.long_seconds)
    clips = sum(clip.seconds for clip in data.clips)
    print(f"audio: {data.origin}; {len(data.clips)} clips, {clips:.0f} s; one recording of {data.long.seconds:.0f} s")
    with section("engine worker, CPU time"):
        asyncio.run(engine_cost(data))
    with section("start-up"):
        start_up(plan.starts)
    with service(engine__workers=1) as one, service(engine__workers=2) as two:
        with section("latency, 2 workers"):
            latency(data, two.target, plan.latency_rounds)
        with section(f"throughput, {IN_FLIGHT} calls in flight, words known to the workers"):
            asyncio.run(workers(data, one, two, plan.rounds))
    with service(engine__workers=2) as two, section(f"cost of the service, {IN_FLIGHT} calls in flight"):
        asyncio.run(overhead(data, two, plan.rounds))
    with section("memory"):
        footprint(data)
    print(f"\nmachine: {_machine()}")


if __name__ == "__main__":
    main()
