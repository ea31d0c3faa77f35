"""`make bench-long-jobs`: what a short call takes beside 0, 1 and 3 long jobs.

    python -m bench.long_jobs [--seconds N] [--rounds N] [--jobs decode,align] [--quick]

One server of the dev profile, where all callers of this machine are one client: the hardest case, as nothing but the length of a
recording tells a short call from a long job. A caller sends a clip of some 5 s, waits for the answer and for a random 0 to 0.2 s,
and goes on. Beside it run long jobs, in a process of their own, each sent again when it is done:

    decode   three hours of MP3 at 32 kbit/s with one sentence of text: seconds of decoding, and one window for the aligner
    align    ten minutes of FLAC with their text: some 20 s of the aligner

The numbers of jobs take turns within a round. `jobs` is what the long jobs got done meanwhile, in hours of audio a minute.
`others`: cores that other programs kept busy; where that is a whole core, the ratios depend on them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection

import av
import numpy as np

from aligner_client import AlignerClientError, AsyncAligner, Progress, RetryPolicy
from bench.gold import RATE, Samples
from bench.material import Speech, material
from bench.overload import share
from bench.processes import others_cpu_seconds
from bench.service import service

COUNTS = (0, 1, 3)
MP3_SECONDS = 3 * 3600
ALIGN_SECONDS = 600.0
SETTLE = 2.0
"""Seconds for the long jobs to be uploaded and at work before the short calls are counted."""
_GOAL = 1.5


@dataclass(slots=True)
class Phase:
    """Short calls beside one number of long jobs. Latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    audio: float = 0.0
    """Seconds of audio that the long jobs got done."""
    wall: float = 0.0
    job_refusals: Counter[str] = field(default_factory=Counter)


def mp3(samples: Samples, seconds: float) -> bytes:
    """`samples` at 32 kbit/s, encoded once and repeated: frames need no header of their file."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono", format="s16p")
        stream.bit_rate = 32_000
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate = RATE
        fifo.write(frame)
        for part in fifo.read_many(576, partial=True):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue() * round(seconds * RATE / len(samples))


def jobs(target: str, speech: Speech, count: int, pipe: Connection) -> None:
    """The process of the long jobs: `count` at a time until a message arrives; answers what they got done."""
    os.nice(10)  # what it costs to send them is not the server's
    pipe.send(asyncio.run(_jobs(target, speech, count, pipe)))


async def _jobs(target: str, speech: Speech, count: int, pipe: Connection) -> tuple[float, Counter[str]]:
    done: dict[int, float] = dict.fromkeys(range(count), 0.0)
    refused: Counter[str] = Counter()

    async def job(number: int) -> None:
        before = 0.0
        async with AsyncAligner(target, retry=RetryPolicy(attempts=1)) as aligner:
            while True:
                on_progress = partial(_note, done, number, before)
                try:
                    await aligner.stream_align(speech.audio, speech.text, timeout=None, on_progress=on_progress)
                    done[number] = before = before + speech.seconds
                except AlignerClientError as error:
                    refused[error.reason] += 1
                    await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(job(number)) for number in range(count)]
    await asyncio.to_thread(pipe.recv)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(done.values()), refused


def _note(done: dict[int, float], number: int, before: float, progress: Progress) -> None:
    done[number] = before + progress.aligned_seconds


async def _short(target: str, clips: list[Speech], seconds: float, seed: int) -> Phase:
    phase, chance = Phase(), random.Random(seed)
    end = time.monotonic() + seconds
    async with AsyncAligner(target, retry=RetryPolicy(attempts=1)) as aligner:
        while time.monotonic() < end:
            clip = chance.choice(clips)
            began = time.perf_counter()
            try:
                await aligner.align(clip.audio, clip.text)
                phase.latencies.append(time.perf_counter() - began)
            except AlignerClientError as error:
                phase.refusals[error.reason] += 1
            await asyncio.sleep(chance.uniform(0.0, 0.2))
    return phase


def measure(target: str, clips: list[Speech], long: Speech, count: int, *, seconds: float, seed: int) -> Phase:
    """One phase: the long jobs are started, the short calls are counted, the jobs are cancelled."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=jobs, args=(target, long, count, theirs))
    process.start()
    time.sleep(SETTLE)
    began = time.monotonic()
    phase = asyncio.run(_short(target, clips, seconds, seed))
    phase.wall = time.monotonic() - began + SETTLE
    ours.send(None)
    phase.audio, phase.job_refusals = ours.recv()
    process.join()
    return phase


def _add(total: Phase, part: Phase) -> None:
    total.latencies += part.latencies
    total.refusals += part.refusals
    total.audio += part.audio
    total.wall += part.wall
    total.job_refusals += part.job_refusals


def report(kind: str, phases: dict[int, Phase]) -> bool:
    """Prints a table; whether the goal is met."""
    print(f"beside long jobs: {kind}")
    print(f"  {'jobs':>5} {'calls':>6} {'p50 ms':>8} {'p95 ms':>8} {'p50 x':>6} {'p95 x':>6} {'refused':>8} {'audio h/min':>12}")
    good = True
    alone = phases[0]
    for count, phase in phases.items():
        p50, p95 = (share(phase.latencies, part) for part in (0.5, 0.95))
        grown = [value / share(alone.latencies, part) for value, part in ((p50, 0.5), (p95, 0.95))]
        refused = phase.refusals.total()
        calls = len(phase.latencies) + refused
        rate = phase.audio / 3600 / (phase.wall / 60)
        why = ", ".join(f"{number} {reason}" for reason, number in (phase.refusals + phase.job_refusals).most_common())
        print(
            f"  {count:5} {calls:6} {p50 * 1000:8.0f} {p95 * 1000:8.0f} {grown[0]:6.2f} {grown[1]:6.2f} {refused:8} {rate:12.2f}"
            f"  {why}".rstrip()
        )
        good = good and not refused and grown[1] <= _GOAL
    print(f"  goal: p95 <= {_GOAL:g}x, none refused: {'ok' if good else 'MISSED'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of every phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default="decode,align")
    parser.add_argument("--quick", action="store_true", help="one round of 4 s a phase, to see it run")
    arguments = parser.parse_args()
    seconds, rounds = (4.0, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    speech = material(80, ALIGN_SECONDS)
    clips = list(speech.five_seconds)
    with av.open(io.BytesIO(clips[0].audio)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        frames = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    whole = np.concatenate(frames)
    long = {
        "decode": Speech(mp3(whole, MP3_SECONDS), clips[0].text, MP3_SECONDS),
        "align": speech.long,
    }
    kinds = arguments.jobs.split(",")
    results: dict[str, dict[int, Phase]] = {kind: {count: Phase() for count in COUNTS} for kind in kinds}
    load = f"load average {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"
    print(f"short calls: {speech.origin}, some 5 s; {load}")
    began, others = time.monotonic(), others_cpu_seconds()
    with service() as running:
        measure(running.target, clips, long[kinds[0]], 0, seconds=1.0, seed=0)
        for number in range(rounds):
            for kind in kinds:
                for count in COUNTS:
                    part = measure(running.target, clips, long[kind], count, seconds=seconds, seed=number)
                    _add(results[kind][count], part)
    busy = (others_cpu_seconds() - others) / (time.monotonic() - began)
    good = [report(kind, results[kind]) for kind in kinds]
    print(f"others: {max(0.0, busy):.2f} cores")
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
