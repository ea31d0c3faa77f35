"""`make bench-vs`: the service beside what one would write in its place (vs_app.py), on this machine, in turns.

    python -m bench.vs [--seconds N] [--rounds N] [--plot FILE]

Both have the embedded engine, a process of it for each core, and no credentials. Callers send clips of some 5 s, wait for the
answer and send the next; none retries. Then 4 callers go on, a few times a second each, beside another one that sends a long
recording over and over, or a hostile file. `p95` is of the calls that were served, `lost` are those of the callers that got no
answer. Memory is that of all processes (PSS), its peak.

`others`: cores that other programs kept busy; where that is a whole core, the figures depend on them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from aligner_client import AlignerClientError, AsyncAligner, RetryPolicy
from bench.material import Speech, material
from bench.overload import share
from bench.processes import cpu_seconds, others_cpu_seconds, tree, watched
from bench.service import service
from tests.hostile.boxes import inflated
from tests.hostile.compressed import COMPRESSED, silent_flac

CORES: Final = len(os.sched_getaffinity(0))
LONG_SECONDS: Final = 600.0
_TIMEOUT: Final = 20.0
"""Seconds after which a caller gives up."""
_PAUSE: Final = 0.25
"""Seconds, at most, between two calls of the few callers beside something else."""

_SAME: Final = 0.02
"""Seconds by which both may find a word apart: the service keeps neighbours from overlapping."""

Call = Callable[[Speech], Awaitable[str]]
"""Aligns a clip; "" or why it was not."""


@dataclass(slots=True)
class Figures:
    """Of one load. Latencies in seconds, memory in MB."""

    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    memory: float = 0.0
    cpu: float = 0.0
    """Seconds of all processes."""
    other: Counter[str] = field(default_factory=Counter)
    """What became of the calls beside which these were made."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.wall

    def p(self, part: float) -> float:
        """A quantile in ms."""
        return share(self.latencies, part) * 1000


@dataclass(frozen=True, slots=True)
class Situation:
    """`callers` that go on without a pause, or with one if there is something `beside` them."""

    name: str
    callers: int
    beside: Speech | None = None
    leaves: bool = False
    """An app goes on with that when its sender is gone."""


def _hostile(audio: bytes) -> Speech:
    return Speech(audio, "who is there", 0.0)


def situations(long: Speech) -> list[Situation]:
    """In the order of the table."""
    claims = COMPRESSED["flac: 4 h of 8 channels in 300 bytes"].make
    return [
        Situation("1 caller", 1),
        Situation("16 callers", 16),
        Situation("64 callers", 64),
        Situation("beside a header that claims 4 h", 4, _hostile(claims())),
        Situation("beside 200 MB in a packet of 200 kB", 4, _hostile(inflated())),
        Situation("beside 10 minutes of speech", 4, long, leaves=True),
        Situation("beside 4 h of silence in 24 kB", 4, _hostile(silent_flac(1750)), leaves=True),
    ]


@contextmanager
def app() -> Iterator[tuple[str, int]]:
    """Address and process id of uvicorn with the app."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "uvicorn", "bench.vs_app:app", "--workers", str(CORES), "--log-level", "critical"]
    # One thread of the numerical libraries for each process, as the service's have.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--port", address.rpartition(":")[2]], env=environment, start_new_session=True)
    try:
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"http://{address}/openapi.json")
                break
            if process.poll() is not None:
                raise SystemExit("the app did not start")
            time.sleep(0.1)
        yield address, process.pid
    finally:
        # Not by asking: uvicorn waits for the calls of a hostile file for as long as they take.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _app_call(client: httpx.AsyncClient, address: str, clip: Speech) -> str:
    form = {"files": {"audio": clip.audio}, "data": {"transcript": clip.text}}
    try:
        answer = await client.post(f"http://{address}/align", timeout=_TIMEOUT, **form)  # type: ignore[arg-type]
    except httpx.TimeoutException:
        return "timeout"
    except httpx.TransportError:
        return "connection lost"
    return "" if answer.status_code == httpx.codes.OK else f"HTTP {answer.status_code}"


async def _service_call(aligner: AsyncAligner, clip: Speech) -> str:
    try:
        await aligner.align(clip.audio, clip.text, timeout=_TIMEOUT)
    except AlignerClientError as error:
        return error.reason or error.code.name
    return ""


async def _load(call: Call, clips: list[Speech], situation: Situation, figures: Figures, *, seconds: float, seed: int) -> None:
    end = 0.0

    async def caller(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            began = time.perf_counter()
            failure = await call(chance.choice(clips))
            if failure:
                figures.failures[failure] += 1
                await asyncio.sleep(0.05)
            else:
                figures.latencies.append(time.perf_counter() - began)
            if situation.beside is not None:
                await asyncio.sleep(chance.uniform(0.0, _PAUSE))

    async def other(speech: Speech) -> None:
        while True:
            figures.other[await call(speech) or "answered"] += 1
            await asyncio.sleep(0.05)

    beside = None if situation.beside is None else asyncio.create_task(other(situation.beside))
    if beside is not None:
        await asyncio.sleep(0.5)
    began = time.monotonic()
    end = began + seconds
    await asyncio.gather(*map(caller, range(situation.callers)))
    figures.wall += time.monotonic() - began
    if beside is not None:
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)


async def _measure(
    kind: str, address: str, clips: list[Speech], situation: Situation, figures: Figures, *, seconds: float, seed: int
) -> None:
    if kind == "service":
        async with AsyncAligner(address, retry=RetryPolicy(attempts=1)) as aligner:
            await _load(lambda clip: _service_call(aligner, clip), clips, situation, figures, seconds=seconds, seed=seed)
    else:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), trust_env=False) as client:
            await _load(lambda clip: _app_call(client, address, clip), clips, situation, figures, seconds=seconds, seed=seed)


async def _starts(kind: str, address: str, clip: Speech) -> list[float]:
    """Of the words of a clip, in seconds; 0 for one that was not found."""
    if kind == "service":
        async with AsyncAligner(address) as aligner:
            return [word.start if word.confidence else 0.0 for word in (await aligner.align(clip.audio, clip.text)).words]
    async with httpx.AsyncClient(trust_env=False) as client:
        form = {"files": {"audio": clip.audio}, "data": {"transcript": clip.text}}
        answer = await client.post(f"http://{address}/align", timeout=_TIMEOUT, **form)  # type: ignore[arg-type]
    return [start if confidence else 0.0 for _, start, _, confidence in answer.raise_for_status().json()]


@contextmanager
def running(kind: str) -> Iterator[tuple[str, int]]:
    """Address and process id of either."""
    if kind == "app":
        with app() as found:
            yield found
    else:
        with service(engine__workers=CORES) as started:
            yield started.target, started.pid


Results = dict[str, dict[str, Figures]]
"""By situation and kind."""


def compare(clips: list[Speech], found: list[Situation], *, seconds: float, rounds: int) -> Results:
    """Both run, and the turns of one situation follow each other, so that what else the machine does concerns both.

    The app is started anew after a situation whose calls it goes on with.
    """
    starts: dict[str, list[float]] = {}
    results: Results = {situation.name: {"service": Figures(), "app": Figures()} for situation in found}
    for number in range(rounds):
        with running("service") as ours:
            left = list(found)
            while left:
                last = next((place for place, one in enumerate(left) if one.leaves), len(left) - 1)
                group, left = left[: last + 1], left[last + 1 :]
                with running("app") as theirs:
                    places = {"service": ours, "app": theirs}
                    for kind, (address, _) in places.items():
                        starts[kind] = asyncio.run(_starts(kind, address, clips[0]))
                        warm = Situation("warm", 2 * CORES)
                        asyncio.run(_measure(kind, address, clips, warm, Figures(), seconds=1.0, seed=number))
                    for situation in group:
                        _turns(places, clips, situation, results[situation.name], seconds=seconds, seed=number)
    if max(abs(one - other) for one, other in zip(*starts.values(), strict=True)) > _SAME:
        raise SystemExit(f"they do not find the same: {starts}")
    return results


def _turns(
    places: dict[str, tuple[str, int]],
    clips: list[Speech],
    situation: Situation,
    results: dict[str, Figures],
    *,
    seconds: float,
    seed: int,
) -> None:
    """The service, the app twice, and the service again; once each where the app goes on with what it was sent."""
    turns = ("service", "app") if situation.leaves else ("service", "app", "app", "service")
    for kind in turns:
        address, pid = places[kind]
        figures, before = results[kind], cpu_seconds(tree(pid))
        with watched(pid) as memory:
            part = seconds * 2 / len(turns)
            asyncio.run(_measure(kind, address, clips, situation, figures, seconds=part, seed=seed))
        figures.cpu += cpu_seconds(tree(pid)) - before
        figures.memory = max(figures.memory, memory[-1].pss)
    print(f"{situation.name}: " + ", ".join(f"{kind} {one.p(0.95):.0f} ms" for kind, one in results.items()), file=sys.stderr)


def table(results: Results) -> str:
    """Markdown."""
    lines = [
        "| | | answers/s | p50 ms | p95 ms | CPU ms an answer | lost | peak MB | the other calls |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, kinds in results.items():
        for kind, figures in kinds.items():
            lost = ", ".join(f"{count} {why}" for why, count in figures.failures.most_common()) or "0"
            other = ", ".join(f"{count} {what}" for what, count in figures.other.most_common())
            lines.append(
                f"| {name} | {kind} | {figures.rate:.1f} | {figures.p(0.5):.0f} | {figures.p(0.95):.0f} "
                f"| {1000 * figures.cpu / max(1, len(figures.latencies)):.0f} | {lost} "
                f"| {figures.memory:.0f} | {other} |"
            )
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """The 95th percentiles, on a logarithmic axis."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - half a second, and not needed for the table

    names = list(results)
    figure: Any
    axes: Any
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for shift, kind, colour in ((-0.2, "service", "#2a6fbb"), (0.2, "app", "#d98c2b")):
        values = [results[name][kind].p(0.95) / 1000 for name in names]
        bars = axes.barh([place + shift for place in range(len(names))], values, height=0.38, color=colour, label=kind)
        axes.bar_label(bars, labels=[f"{value:.2f} s" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("seconds in which 95 % of the served calls of 5 s clips were answered")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of every situation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="situations with this in their name")
    parser.add_argument("--plot", type=Path, default=Path("build/bench-vs.png"))
    arguments = parser.parse_args()
    speech = material(80, LONG_SECONDS)
    clips = list(speech.five_seconds)
    found = [one for one in situations(speech.long) if arguments.only in one.name]
    began, others = time.monotonic(), others_cpu_seconds()
    results = compare(clips, found, seconds=arguments.seconds, rounds=arguments.rounds)
    busy = (others_cpu_seconds() - others) / (time.monotonic() - began)
    print(f"clips: {speech.origin}, some 5 s; {CORES} cores, others {max(0.0, busy):.2f}\n")
    print(table(results))
    plot(results, arguments.plot)
    print(f"\n{arguments.plot}")


if __name__ == "__main__":
    main()
