"""`python -m bench.live_hour`: what a long upload takes: memory, time, and exactness at its end.

    python -m bench.live_hour [--minutes 60] [--form wav|mp3|m4a|m4a-moov-last] [--streams N] [--sparse] [--recording NAME]

One server of the dev profile. A recording of bench.live comes again and again, four minutes by default, sent as fast as it goes.
Memory is that of all processes of the server (pages shared by several count once), its peak above what they have when idle, after
two calls and a stream of it. The rate is compared with that of `Align` for the recording once.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator

import av
import grpc
import numpy as np

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench import gold
from bench.gold import RATE, Samples, recordings
from bench.live import LINEAR16, cpu, mae
from bench.processes import memory, tree, watched
from bench.service import service

_CHUNK = 64 * 1024
_FORMATS = {"mp3": ("mp3", "libmp3lame"), "m4a": ("mp4", "aac"), "m4a-moov-last": ("mp4", "aac")}
_PART_SECONDS = 300.0
"""Of the beginning and of the end, whose errors are compared."""


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
            for _ in range(2):
                began, used = time.monotonic(), cpu(server.pid)
                await stub.Align(pb.AlignRequest(config=config, audio=samples.tobytes()))
            rate, bulk = seconds / (time.monotonic() - began), (cpu(server.pid) - used) / seconds
            await stream(stub, four.text, encoded(samples, options.form))
            await asyncio.sleep(2)
            idle, began, used = memory(tree(server.pid)), time.monotonic(), cpu(server.pid)
            with watched(server.pid) as seen:
                answers = await asyncio.gather(*(stream(stub, whole.text, data) for _ in range(options.streams)))
            took = time.monotonic() - began
            total = seconds * times * options.streams
            peak = seen[-1]
            words = answers[0]
            count = sum(row["end"] <= _PART_SECONDS for row in rows)
            ends = gold.Recording("", four.audio, "", rows[-count:])
            sparse = " (sparse)" if options.sparse else ""
            print(
                f"{options.form} x{options.streams}, {seconds * times / 60:.0f} min{sparse}: {peak.pss - idle.pss:+.0f} MB over "
                f"{idle.pss:.0f}; {total / took:.1f}x real time, Align {rate:.1f}x; CPU {(cpu(server.pid) - used) / total:.3f} s "
                f"a second, Align {bulk:.3f}; words {len(words)} of {len(rows)}; MAE of the first 5 min "
                f"{mae(words[:count], whole)[0]:.2f}, of the last {mae(words[-count:], ends)[0]:.2f} ms"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--form", default="wav", choices=["wav", *_FORMATS])
    parser.add_argument("--recording", default="dev_8spk")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--sparse", action="store_true", help="silence but for the first and the last of the recordings")
    asyncio.run(main(parser.parse_args()))
