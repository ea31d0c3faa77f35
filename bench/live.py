"""`make bench-live`: recordings sent as they are spoken, and how long each word takes to come back.

    python -m bench.live [--recording dev_1spk] [--seconds N] [--streams N] [--forms linear16,wav] [--bulk] [--pause N] [--short]

One server of the dev profile with two aligners. Each recording, spliced from hand-marked sentences of TIMIT, is sent in chunks of
100 ms at the pace of speech by `--streams` clients that begin 0.3 s apart; `--bulk` sends as fast as it goes. `--pause`: so many
seconds of silence after each sentence. `--short`: `Align` of 3 s, again and again, before the streams and beside them.
CPU is that of the server, above what it takes when idle.
The lag of a word is from its end, as it was found, to its arrival. MAE is against the marks, of the whole file's answer too;
with another `--language` against that answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench import gold, live_passages
from bench.gold import RATE, Recording, Rows, Samples, recordings
from bench.live_passages import GAP, paused
from bench.processes import cpu_seconds, tree
from bench.service import service

CHUNK_SECONDS = 0.1
_IDLE_SECONDS = 3.0
_SHORT_SECONDS, _EVERY, _ALONE = 3.0, 0.2, 60
"""Of a short call: its audio, the pause after it, and how many there are without streams."""
LINEAR16: dict[str, Any] = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hz": RATE}


@dataclass(slots=True)
class Streamed:
    """What came back; seconds."""

    words: list[pb.Word] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    longest_silence: float = 0.0
    refused: str = ""
    wall: float = 0.0


async def stream(
    stub: AlignerStub, text: str, samples: Samples, form: str, *, live: bool, delay: float = 0.0, language: str = "en"
) -> Streamed:
    """Send `samples` and collect the answer."""
    await asyncio.sleep(delay)
    data = samples.tobytes() if form == "linear16" else _wav(samples)
    size = int(CHUNK_SECONDS * RATE) * 2 if live else 32 * 1024
    began = time.monotonic()

    async def requests() -> AsyncIterator[pb.StreamAlignRequest]:
        shape = LINEAR16 if form == "linear16" else {}
        yield pb.StreamAlignRequest(config=pb.AlignConfig(transcript=text, language=language, **shape))
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


def spliced(name: str) -> tuple[Recording, Samples]:
    recording = next(one for one in recordings("timit_long") if one.name == name)
    return recording, gold.samples(recording.audio)


def phrases(language: str) -> tuple[Recording, Samples]:
    """All there is in another language, joined; it has no marks of words."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((gold.GOLD / "sppas").glob("*.json"))]
    chosen = [one for one in found if one["language"] == language]
    samples = [gold.samples(gold.GOLD / "sppas" / one["audio"]) for one in chosen]
    return Recording(language, gold.GOLD, " ".join(one["text"] for one in chosen), []), np.concatenate(samples)


async def short_calls(stub: AlignerStub, samples: Samples, rows: Rows, until: Callable[[int], bool]) -> tuple[list[float], int]:
    """Seconds that each call took, every _EVERY, and how many were refused; `until`: whether so many are enough."""
    said = [row["text"] for row in rows if row["end"] <= _SHORT_SECONDS]
    config = pb.AlignConfig(transcript=" ".join(said), language="en", **LINEAR16)
    request = pb.AlignRequest(config=config, audio=samples[: int(_SHORT_SECONDS * RATE)].tobytes())
    took: list[float] = []
    refused = 0
    while not until(len(took)):
        began = time.monotonic()
        try:
            await stub.Align(request)
            took.append(time.monotonic() - began)
        except grpc.aio.AioRpcError:
            refused += 1
        await asyncio.sleep(_EVERY)
    return took, refused


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
    recording, samples = phrases(options.language) if options.language != "en" else spliced(options.recording)
    samples = samples[: int(options.seconds * RATE)]
    rows = [row for row in recording.words if row["end"] <= len(samples) / RATE]
    samples = samples[: int((rows[-1]["end"] + GAP / 2) * RATE)] if rows else samples  # no word without its text
    clip, said = samples, rows
    if options.pause:
        samples, rows = paused(samples, rows, options.pause)
    text = " ".join(row["text"] for row in rows) + "." if rows else recording.text  # or the last word may go on, and waits
    recording = Recording(recording.name, recording.audio, text, rows)
    with service(engine__workers=2) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = AlignerStub(channel)
            config = pb.AlignConfig(transcript=recording.text, language=options.language, **LINEAR16)
            began, used = time.monotonic(), cpu(server.pid)
            await asyncio.sleep(_IDLE_SECONDS)
            idle = (cpu(server.pid) - used) / (time.monotonic() - began)
            used = cpu(server.pid)
            whole = await stub.Align(pb.AlignRequest(config=config, audio=samples.tobytes()))
            seconds = len(samples) / RATE
            bulk_cpu = (cpu(server.pid) - used) / seconds
            if not rows:
                rows = [{"start": word.start_ms / 1000, "end": word.end_ms / 1000} for word in whole.words]
                recording = Recording(recording.name, recording.audio, text, rows)
            first = mae(list(whole.words), recording)[0]
            print(
                f"{recording.name}, {seconds:.0f} s, {len(rows)} words; Align: MAE {first:.2f} ms, {bulk_cpu:.3f} CPU s a second"
                f"; idle {idle:.3f}"
            )
            alone, _ = await short_calls(stub, clip, said, lambda done: done >= _ALONE * options.short)
            for form in options.forms.split(","):
                used = cpu(server.pid)
                streaming = asyncio.gather(
                    *(
                        stream(
                            stub,
                            recording.text,
                            samples,
                            form,
                            live=not options.bulk,
                            delay=0.3 * number,
                            language=options.language,
                        )
                        for number in range(options.streams)
                    )
                )
                if options.short:
                    await asyncio.sleep(0.3 * options.streams)
                    beside, refused = await short_calls(stub, clip, said, lambda _: streaming.done())  # noqa: B023 - awaited here
                    quick, slow = (np.percentile(took, [50, 95]) for took in (alone, beside))
                    print(
                        f"Align of {_SHORT_SECONDS:.0f} s: p50 {quick[0]:.3f} p95 {quick[1]:.3f} s alone, {slow[0]:.3f} and "
                        f"{slow[1]:.3f} beside the streams ({len(beside)} calls, {refused} refused): {slow[1] / quick[1]:.2f}x"
                    )
                answers = await streaming
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
                    f"refused {sum(bool(answer.refused) for answer in answers)}, half way "
                    f"{sum(0 < count < max(words) for count in words)}"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", default="dev_8spk")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--forms", default="linear16,wav")
    parser.add_argument("--bulk", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--language", default="en", help="another one: phrases of it, and errors against the words of Align")
    parser.add_argument("--passages", action="store_true", help="bench/live_passages.py")
    arguments = parser.parse_args()
    if arguments.passages:
        live_passages.main()
    else:
        asyncio.run(main(arguments))
