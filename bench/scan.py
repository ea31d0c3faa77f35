"""What the virus scan adds to a stream: two servers side by side, one with a clamd and one without, the same uploads in turn.

    python -m bench.scan

Real speech through the default engine, as WAV of three sizes. Every upload is new (its first sample differs), so that no
verdict comes from the cache, and is sent at 10 MB a second, which takes longer than its scan. `after` runs from when the last
chunk was sent to the last answer; `scan` is the server's time from the end of the upload to the verdict. `beside` is the
server without a scanner while clamd scans the same bytes for another client: the CPU that clamd takes from the engine. clamd
is Debian's, with one signature of the bench's own.
"""

from __future__ import annotations

import io
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import clamd
import grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench import gold
from bench.material import material
from bench.service import service
from tests.kit.clamd_server import running_clamd

_CHUNK = 64 * 1024
_PACE = 10e6
"""Bytes a second."""
_SIZES = ((0.0, 40), (31.0, 16), (312.0, 5))
"""Minimum seconds of speech (0: a clip of about five), and repetitions for each server."""
_GOAL = 20.0
_LARGEST = 64 << 20


def upload(
    config: pb.AlignConfig, audio: bytes, sent: list[float], meanwhile: threading.Thread | None
) -> Iterator[pb.StreamAlignRequest]:
    yield pb.StreamAlignRequest(config=config)
    began = time.perf_counter()
    for start in range(0, len(audio), _CHUNK):
        time.sleep(max(0.0, began + start / _PACE - time.perf_counter()))
        yield pb.StreamAlignRequest(audio=audio[start : start + _CHUNK])
    sent.append(time.perf_counter())
    if meanwhile is not None:
        meanwhile.start()


def stream(
    stub: AlignerStub, config: pb.AlignConfig, audio: bytes, meanwhile: threading.Thread | None = None
) -> tuple[float, int]:
    """Milliseconds after the last chunk, and how many of them were the scan."""
    sent: list[float] = []
    summary = pb.Summary()
    for answer in stub.StreamAlign(upload(config, audio, sent, meanwhile)):
        if answer.HasField("summary"):
            summary = answer.summary
    return (time.perf_counter() - sent[0]) * 1000, summary.timing.scan_ms


def recording(seconds: float) -> tuple[gold.Samples, str]:
    """Speech of about this length, and its transcript."""
    found = material(40, max(1.0, seconds))
    speech = found.long if seconds else found.five_seconds[0]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "speech"
        path.write_bytes(speech.audio)
        return gold.samples(path).copy(), speech.text


def main() -> None:
    with (
        running_clamd(stream_max_bytes=_LARGEST) as scanner,
        service(limits__stream_audio_bytes=_LARGEST) as bare,
        service(
            limits__stream_audio_bytes=_LARGEST, antivirus__address=scanner.unix, antivirus__stream_max_bytes=_LARGEST
        ) as scanned,
        grpc.insecure_channel(bare.target) as channel,
        grpc.insecure_channel(scanned.target) as other,
    ):
        stubs = {"bare": AlignerStub(channel), "scanned": AlignerStub(other), "beside": AlignerStub(channel)}
        print(f"{'':17} {'no scan':>8} {'scanned':>8} {'added':>7} {'beside':>7} {'scan':>6}   ms, medians")
        number = 0
        for seconds, times in _SIZES:
            samples, text = recording(seconds)
            config = pb.AlignConfig(transcript=text, language="en")
            after: dict[str, list[float]] = {name: [] for name in stubs}
            scans = []
            for turn in range(times + 1):
                number += 1
                samples[0] = number
                audio = gold.wav(samples)
                for name in _turns(list(stubs), turn):
                    thread = None
                    if name == "beside":
                        client = clamd.ClamdUnixSocket(str(scanner.path))
                        thread = threading.Thread(target=client.instream, args=(io.BytesIO(audio + b"\0"),))
                    took, scan = stream(stubs[name], config, audio, thread)
                    if thread is not None:
                        thread.join()
                    if turn:  # the first warms up
                        after[name].append(took)
                        scans += [scan] if name == "scanned" else []
            median = statistics.median(after["bare"])
            added, beside = (
                statistics.median(more - without for more, without in zip(after[name], after["bare"], strict=True))
                for name in ("scanned", "beside")
            )
            label = f"{len(audio) / 1e6:.2f} MB, {len(samples) / gold.RATE:.0f} s"
            print(
                f"{label:17} {median:8.0f} {statistics.median(after['scanned']):8.0f} {added:+7.1f} {beside:+7.1f} "
                f"{statistics.median(scans):6.0f}",
                flush=True,
            )
    print(f"\ngoal: {_GOAL:g} ms or less added")


def _turns(names: list[str], turn: int) -> list[str]:
    return names[turn % len(names) :] + names[: turn % len(names)]


if __name__ == "__main__":
    main()
