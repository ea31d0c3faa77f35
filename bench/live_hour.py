"""`python -m bench.live_hour`: what a long upload takes: memory, time, and exactness at its end.

    python -m bench.live_hour [--minutes 60] [--form wav|mp3|ogg|flac|webm|aac|m4a|m4a-moov-last] [--streams N] [--turns N]
                              [--sparse] [--recording NAME]

One server of the dev profile. A recording of bench.live comes again and again, four minutes by default, sent as fast as it goes.
Memory is that of all processes of the server (pages shared by several count once), its peak above what they have when idle, after
two calls and a stream of it. With `--turns` the rate and the CPU are compared instead with those of `Align` for the recording
once, which comes before and behind each turn: medians. Looking at the memory ten times a second would slow the server down.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

import av
import grpc
import numpy as np

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench import gold
from bench.gold import RATE, Samples, recordings
from bench.live import LINEAR16, cpu, mae
from bench.processes import memory, tree, watched
from bench.service import Running, service

T = TypeVar("T")

_CHUNK = 64 * 1024
_FORMATS = {
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"),
    "flac": ("flac", "flac"),
    "webm": ("webm", "libopus"),
    "aac": ("adts", "aac"),
    "m4a": ("mp4", "aac"),
    "m4a-moov-last": ("mp4", "aac"),
}
_PART_SECONDS = 300.0
"""Of the beginning and of the end, whose errors are compared."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a second of audio: seconds, by the clock and of the server's processors."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """Something to measure, and how much audio it is."""

    seconds: float
    begin: Callable[[], Awaitable[T]]


def encoded(samples: Samples, form: str) -> bytes:
    if form == "wav":
        return gold.wav(samples)
    container, codec = _FORMATS[form]
    options = {"movflags": "faststart"} if form == "m4a" else {}
    with tempfile.NamedTemporaryFile() as file:
        _encode(samples, av.open(file.name, "w", format=container, options=options), codec)
        return file.read()


def _encode(samples: Samples, container: av.container.OutputContainer, codec: str) -> None:
    with container as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        if codec != "flac":
            stream.bit_rate = 64_000
        for at in range(0, len(samples), RATE * 10):
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis, at : at + RATE * 10], format="s16", layout="mono")
            frame.sample_rate = RATE
            frame.pts = at
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


async def stream(stub: AlignerStub, text: str, data: bytes) -> list[pb.Word]:
    async def requests() -> AsyncIterator[pb.StreamAlignRequest]:
        yield pb.StreamAlignRequest(config=pb.AlignConfig(transcript=text, language="en"))
        for at in range(0, len(data), _CHUNK):
            yield pb.StreamAlignRequest(audio=data[at : at + _CHUNK])

    words: list[pb.Word] = []
    async for message in stub.StreamAlign(requests()):
        words += message.words.words
        if message.HasField("summary"):
            print(*(warning.code for warning in message.summary.warnings), end=" ")
    return words


async def _timed(server: Running, work: Work[T]) -> tuple[T, Cost]:
    began, used = time.monotonic(), cpu(server.pid)
    result = await work.begin()
    return result, Cost((time.monotonic() - began) / work.seconds, (cpu(server.pid) - used) / work.seconds)


async def _memory(server: Running, streams: Work[T]) -> tuple[T, str]:
    idle = memory(tree(server.pid))
    with watched(server.pid) as seen:
        answer = await streams.begin()
    return answer, f"{seen[-1].pss - idle.pss:+.0f} MB over {idle.pss:.0f}"


async def _rates(server: Running, streams: Work[T], align: Work[pb.AlignResponse], turns: int) -> tuple[T, str]:
    aligned = [(await _timed(server, align))[1]]
    streamed = []
    for _ in range(turns):
        answer, cost = await _timed(server, streams)
        streamed.append(cost)
        aligned.append((await _timed(server, align))[1])
    rate, of_align = (1 / median(cost.wall for cost in costs) for costs in (streamed, aligned))
    used, by_align = (median(cost.cpu for cost in costs) for costs in (streamed, aligned))
    return answer, (
        f"{rate:.1f}x real time, Align {of_align:.1f}x: {rate / of_align:.2f}; CPU {used:.3f} s a second, Align {by_align:.3f}: "
        f"{used / by_align:.2f}"
    )


async def main(options: argparse.Namespace) -> None:
    four = next(one for one in recordings("timit_long") if one.name == options.recording)
    samples = gold.samples(four.audio)
    seconds = len(samples) / RATE
    times = max(1, round(options.minutes * 60 / seconds))
    spoken = [number for number in range(times) if not options.sparse or number in {0, times - 1}]
    rows = [
        {**row, "start": row["start"] + number * seconds, "end": row["end"] + number * seconds}
        for number in spoken
        for row in four.words
    ]
    whole = gold.Recording(four.name, four.audio, " ".join([four.text] * len(spoken)), rows)
    quiet = np.zeros_like(samples)
    data = encoded(np.concatenate([samples if number in spoken else quiet for number in range(times)]), options.form)
    with service(engine__workers=2) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = AlignerStub(channel)
            config = pb.AlignConfig(transcript=four.text, language="en", **LINEAR16)
            request = pb.AlignRequest(config=config, audio=samples.tobytes())
            await stub.Align(request)
            await stream(stub, four.text, encoded(samples, options.form))
            await asyncio.sleep(2)
            streams = Work(
                seconds * times * options.streams,
                lambda: asyncio.gather(*(stream(stub, whole.text, data) for _ in range(options.streams))),
            )
            align = Work(seconds, lambda: stub.Align(request))
            answers, measured = await (
                _rates(server, streams, align, options.turns) if options.turns else _memory(server, streams)
            )
    words = answers[0]
    count = sum(row["end"] <= _PART_SECONDS for row in rows)
    ends = gold.Recording("", four.audio, "", rows[-count:])
    sparse = " (sparse)" if options.sparse else ""
    print(
        f"{options.form} x{options.streams}, {seconds * times / 60:.0f} min{sparse}: {measured}; words {len(words)} of "
        f"{len(rows)}, {sum(word.status == pb.WORD_STATUS_NOT_FOUND for word in words)} not found; MAE of the first 5 min "
        f"{mae(words[:count], whole)[0]:.2f}, of the last {mae(words[-count:], ends)[0]:.2f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--form", default="wav", choices=["wav", *_FORMATS])
    parser.add_argument("--recording", default="dev_8spk")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--turns", type=int, default=0, help="compare the rate with that of Align")
    parser.add_argument("--sparse", action="store_true", help="silence but for the first and the last of the recordings")
    asyncio.run(main(parser.parse_args()))
