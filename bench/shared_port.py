"""`make bench-processes`: what a second process on the port brings, with an engine that costs nothing.

    python -m bench.shared_port [--seconds N] [--rounds N]

The clip is 3 s of headerless samples, 96 KB. One and two processes take turns, so that other load slows both. The client needs
cores too: where it has none of its own, calls a second cannot double however well the server scales. So the calls for a second of
the gateways' CPU are told as well, by which the capacity of as many cores as processes can be reckoned.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from bench.processes import cpu_seconds, tree
from bench.service import service

_CONNECTIONS: Final = 16
_IN_FLIGHT: Final = 2
"""On each connection."""
_ALIGN: Final = "/aligner.v1.Aligner/Align"

_ENGINE: Final = """
from aligner_svc.domain import WordStatus
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, Span
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words

class Free:
    name, languages, max_seconds, capacity, report = "free-1", frozenset({"en"}), None, Capacity(64, 64), EngineReport()
    async def start(self): pass
    async def close(self): pass
    async def tokenise(self, transcript, language): return words(transcript, tokenise, language)
    async def align(self, clip, tokens, language, caller, progress=None):
        each = clip.seconds / len(tokens)
        spans = [Span(n * each, (n + 1) * each, 0.5, WordStatus.ALIGNED) for n in range(len(tokens))]
        return EngineResult(spans, match_score=1.0)

def build(settings, on_failed, watch): return Free()
"""
_KNOWN: Final = 'from aligner_svc.config.engine import ENGINES\nENGINES["free"] = "bench_free_engine:build"\n'


@dataclass(frozen=True, slots=True)
class Result:
    """Calls a second; milliseconds of CPU for a call: of the gateways, and of all processes of the server."""

    rate: float
    gateways: float
    server: float


@contextmanager
def _free_engine() -> Iterator[None]:
    """Every Python process started meanwhile knows the engine."""
    before = os.environ.get("PYTHONPATH", "")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_free_engine.py").write_text(_ENGINE)
        (Path(folder) / "sitecustomize.py").write_text(_KNOWN)
        os.environ["PYTHONPATH"] = f"{folder}:{before}"
        try:
            yield
        finally:
            os.environ["PYTHONPATH"] = before


async def _load(target: str, seconds: float) -> int:
    config = pb.AlignConfig(
        transcript="nine words for three seconds of noise to align",
        language="en",
        encoding=pb.AUDIO_ENCODING_LINEAR16,
        sample_rate_hz=16_000,
    )
    request = pb.AlignRequest(config=config, audio=os.urandom(96_000)).SerializeToString()
    end, calls = time.monotonic() + seconds, 0

    async def client(channel: grpc.aio.Channel) -> None:
        nonlocal calls
        align = channel.unary_unary(_ALIGN)
        while time.monotonic() < end:
            await align(request)
            calls += 1

    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options) for _ in range(_CONNECTIONS)]
    await asyncio.gather(*(client(channel) for channel in channels for _ in range(_IN_FLIGHT)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return calls


def _gateways(pid: int) -> list[int]:
    """The process itself where it is alone, else those that it supervises."""
    found = [one for one in tree(pid) if b"processes.gateway" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return found or [pid]


def _measure(processes: int, seconds: float) -> Result:
    settings = {"server__processes": processes, "engine__name": "free", "engine__workers": 2, "decode__workers": 2}
    with service(**settings, overload__pressure="false", overload__adaptive="false") as running:
        asyncio.run(_load(running.target, seconds / 4))
        gateways, everything = _gateways(running.pid), tree(running.pid)
        before = cpu_seconds(gateways), cpu_seconds(everything)
        began = time.perf_counter()
        calls = asyncio.run(_load(running.target, seconds))
        wall = time.perf_counter() - began
        used = cpu_seconds(gateways) - before[0], cpu_seconds(everything) - before[1]
    return Result(calls / wall, 1000 * used[0] / calls, 1000 * used[1] / calls)


def _main() -> None:
    parser = argparse.ArgumentParser(description="What a second process on the port brings.")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    seen: dict[int, list[Result]] = {1: [], 2: []}
    with _free_engine():
        for _ in range(chosen.rounds):
            for processes, results in seen.items():
                results.append(_measure(processes, chosen.seconds))
    middle = {
        processes: Result(*(statistics.median(getattr(one, name) for one in results) for name in Result.__slots__))
        for processes, results in seen.items()
    }
    print(f"{'processes':<12}{'calls/s':>10}{'gateway CPU, ms a call':>26}{'all CPU, ms a call':>22}")
    for processes, result in middle.items():
        print(f"{processes:<12}{result.rate:>10.0f}{result.gateways:>26.2f}{result.server:>22.2f}")
    one, two = middle[1], middle[2]
    print(f"2 over 1, calls a second, the client on the same {len(os.sched_getaffinity(0))} cores: {two.rate / one.rate:.2f}")
    print(f"2 over 1, if each gateway has a core: {2 * one.gateways / two.gateways:.2f} (goal 1.8)")


if __name__ == "__main__":
    _main()
