"""`make bench-live`: recordings sent as they are spoken, and how long each word takes to come back.

    python -m bench.live [--recording dev_1spk] [--seconds N] [--streams N] [--forms linear16,wav] [--bulk]

One server of the dev profile with two aligners. Each recording, spliced from hand-marked sentences of TIMIT, is sent in chunks of
100 ms at the pace of speech by `--streams` clients that begin 0.3 s apart; `--bulk` sends as fast as it goes.
CPU is that of the server, above what it takes when idle.
The lag of a word is from its end, as it was found, to its arrival. MAE is against the marks, of the whole file's answer too.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench import gold, live_passages
from bench.gold import RATE, Recording, Samples, recordings
from bench.processes import cpu_seconds, tree
from bench.service import service

CHUNK_SECONDS = 0.1
_IDLE_SECONDS = 3.0
LINEAR16: dict[str, Any] = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hz": RATE}


@dataclass(slots=True)
class Streamed:
    """What came back; seconds."""

    words: list[pb.Word] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    longest_silence: float = 0.0
    refused: str = ""
    wall: float = 0.0


async def stream(stub: AlignerStub, text: str, samples: Samples, form: str, *, live: bool, delay: float = 0.0) -> Streamed:
    """Send `samples` and collect the answer."""
    await asyncio.sleep(delay)
    data = samples.tobytes() if form == "linear16" else _wav(samples)
    size = int(CHUNK_SECONDS * RATE) * 2 if live else 32 * 1024
    began = time.monotonic()

    async def requests() -> AsyncIterator[pb.StreamAlignRequest]:
        shape = LINEAR16 if form == "linear16" else {}
        yield pb.StreamAlignRequest(config=pb.AlignConfig(transcript=text, language="en", **shape))
        for number, at in enumerate(range(0, len(data), size), 1):
            if live:
                await asyncio.sleep(max(0.0, began + number * CHUNK_SECONDS - time.monotonic()))
            yield pb.StreamAlignRequest(audio=data[at : at + size])

    answer, last = Streamed(), began
    try:
        async for message in stub.StreamAlign(requests()):
            now = time.monotonic()
            answer.longest_silence, last = max(answer.longest_silence, now - last), now
            for word in message.words.words:
                answer.words.append(word)
                answer.lags.append(now - began - word.end_ms / 1000)
    except Exception as error:
        answer.refused = str(error)[:200]
    answer.wall = time.monotonic() - began
    return answer


def _wav(samples: Samples) -> bytes:
    """With the length that programs write which do not know it."""
    data = bytearray(gold.wav(samples))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    return bytes(data)


def cpu(pid: int) -> float:
    return cpu_seconds(tree(pid))


def mae(words: list[pb.Word], recording: Recording) -> tuple[float, int, int]:
    """Mean error of both edges (ms), edges more than 0.5 s off, words not found."""
    errors = [
        abs(found - marked * 1000)
        for word, row in zip(words, recording.words, strict=False)
        for found, marked in ((word.start_ms, row["start"]), (word.end_ms, row["end"]))
    ]
    absent = sum(word.status == pb.WORD_STATUS_NOT_FOUND for word in words)
    return float(np.mean(errors)) if errors else 0.0, sum(error > 500 for error in errors), absent


async def main(options: argparse.Namespace) -> None:
    recording = next(one for one in recordings("timit_long") if one.name == options.recording)
    samples = gold.samples(recording.audio)[: int(options.seconds * RATE)]
    rows = [row for row in recording.words if row["end"] <= len(samples) / RATE]
    recording = Recording(recording.name, recording.audio, " ".join(row["text"] for row in rows), rows)
    with service(engine__workers=2) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = AlignerStub(channel)
            config = pb.AlignConfig(transcript=recording.text, language="en", **LINEAR16)
            began, used = time.monotonic(), cpu(server.pid)
            await asyncio.sleep(_IDLE_SECONDS)
            idle = (cpu(server.pid) - used) / (time.monotonic() - began)
            used = cpu(server.pid)
            whole = await stub.Align(pb.AlignRequest(config=config, audio=samples.tobytes()))
            seconds = len(samples) / RATE
            bulk_cpu = (cpu(server.pid) - used) / seconds
            first = mae(list(whole.words), recording)[0]
            print(
                f"{recording.name}, {seconds:.0f} s, {len(rows)} words; Align: MAE {first:.2f} ms, {bulk_cpu:.3f} CPU s a second"
                f"; idle {idle:.3f}"
            )
            for form in options.forms.split(","):
                used = cpu(server.pid)
                answers = await asyncio.gather(
                    *(
                        stream(stub, recording.text, samples, form, live=not options.bulk, delay=0.3 * number)
                        for number in range(options.streams)
                    )
                )
                took = (cpu(server.pid) - used - idle * max(answer.wall for answer in answers)) / seconds / options.streams
                lags = np.array([lag for answer in answers for lag in answer.lags])
                error, far, absent = mae(answers[0].words, recording)
                words = [len(answer.words) for answer in answers]
                p50, p95, worst = np.percentile(lags, [50, 95, 100]) if len(lags) else (0.0, 0.0, 0.0)
                print(
                    f"{form:9} x{options.streams}: MAE {error:.2f} ms, {far} edges > 0.5 s off, {absent} not found, "
                    f"words {min(words)} to {max(words)}; lag p50 {p50:.2f} p95 {p95:.2f} max {worst:.2f} s; "
                    f"longest silence {max(answer.longest_silence for answer in answers):.1f} s; {took:.3f} CPU s a second; "
                    f"wall {max(answer.wall for answer in answers):.1f} s; "
                    f"refused {[answer.refused for answer in answers if answer.refused][:2]}"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", default="dev_8spk")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--forms", default="linear16,wav")
    parser.add_argument("--bulk", action="store_true")
    parser.add_argument("--passages", action="store_true", help="bench/live_passages.py")
    arguments = parser.parse_args()
    if arguments.passages:
        live_passages.main()
    else:
        asyncio.run(main(arguments))
