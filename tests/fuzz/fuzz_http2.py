"""HTTP/2 frames that no client sends, against a real server: it goes on serving others, and logs no error.

gRPC's core is not instrumented, so the frames are drawn at random: `python -m tests.fuzz.fuzz_http2 [-runs=FRAMES] [-seed=N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from tests.kit.http2 import PREFACE, Connection
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import connect, serving
from tests.kit.waiting import WAIT_TIMEOUT

FRAMES_A_CONNECTION: Final = 200
"""Most connections end earlier: at the first frame that breaks the protocol."""
TOGETHER: Final = 8
"""Connections at a time."""

METHODS: Final = (
    b"/aligner.v1.Aligner/Align",
    b"/aligner.v1.Aligner/StreamAlign",
    b"/aligner.v1.Aligner/GetServerInfo",
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)
_KNOWN_TYPES: Final = range(10)
_SETTINGS: Final = (1, 2, 3, 4, 5, 6, 8, 0xFE03, 0)
_EDGES: Final = (0, 1, 2, 255, 16_383, 16_384, 16_385, 65_535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    """A frame; `length` instead of the body's."""
    size = len(body) if length is None else length
    return size.to_bytes(4, "big")[1:] + struct.pack("!BBI", kind & 255, flags & 255, stream & 0xFFFFFFFF) + body


def literal(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK, not indexed and not Huffman-coded (RFC 7541, 6.2.2): any bytes can be written."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, out = len(text) - 127, bytearray(b"\x7f")
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes(out) + bytes([rest]) + text


class Peer:
    """Draws the frames of one connection, from mostly valid to mostly broken."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._broken = draw.choice((0.0, 0.02, 0.1, 0.5))
        """How often something is wrong."""
        self._stream = -1
        self._kinds: Sequence[tuple[Callable[[], bytes], int]] = (
            (self._request, 8),
            (self._data, 6),
            (self._settings, 2),
            (self._window_update, 3),
            (self._ping, 1),
            (self._reset, 2),
            (self._continuation, 1),
            (self._priority, 1),
            (self._unknown, 1),
        )

    def next(self) -> bytes:
        """One frame, or what stands for one."""
        draw = self._draw
        if draw.random() < self._broken / 4:
            return draw.randbytes(draw.randrange(1, 64))
        [make] = draw.choices([kind for kind, _ in self._kinds], [weight for _, weight in self._kinds])
        made = make()
        if draw.random() < self._broken:
            at = draw.randrange(len(made))
            made = made[:at] + bytes([made[at] ^ 1 << draw.randrange(8)]) + made[at + 1 :]
        return made

    def _wrong(self) -> bool:
        return self._draw.random() < self._broken

    def _old_stream(self) -> int:
        return self._draw.choice((0, 2, 2**31 - 1)) if self._wrong() else self._draw.randrange(1, max(2, self._stream + 1)) | 1

    def _request(self) -> bytes:
        self._stream += 2
        block = b"".join(literal(name, value) for name, value in self._fields())
        flags = 0x4 | self._draw.choice((0, 0, 0x1))
        if self._draw.random() < 0.1:
            at = self._draw.randrange(len(block))
            return frame(1, flags & ~0x4, self._stream, block[:at]) + frame(9, 0x4, self._stream, block[at:])
        return frame(1, flags, self._stream, block)

    def _fields(self) -> list[tuple[bytes, bytes]]:
        draw = self._draw
        path = draw.choice(METHODS)
        if draw.random() < 0.2:
            path = draw.choice((b"", b"/", b"*", b"/\xff", path + b"\x80", draw.randbytes(draw.randrange(40)), path * 50))
        fields = [
            (b":method", b"POST" if not self._wrong() else draw.choice((b"GET", b"PUT", b"", b"\xff"))),
            (b":scheme", b"http" if not self._wrong() else draw.randbytes(4)),
            (b":path", path),
            (b":authority", b"localhost" if draw.random() < 0.9 else draw.randbytes(8)),
            (b"content-type", b"application/grpc" if not self._wrong() else draw.choice((b"text/html", b"", b"\x00"))),
            (b"te", b"trailers"),
        ]
        optional = (
            (b"grpc-timeout", draw.choice((b"1n", b"0n", b"1u", b"5S", b"99999999H", b"-1S", b"S", b"1x", b"\xff"))),
            (b"grpc-encoding", draw.choice((b"gzip", b"deflate", b"identity", b"br", b"\xfe"))),
            (b"grpc-accept-encoding", draw.choice((b"gzip,deflate", b"x" * 300, b",,,"))),
            (b"authorization", b"Bearer " + draw.randbytes(20)),
            (b"x-api-key", draw.randbytes(20)),
            (b"x-request-id", draw.randbytes(20)),
            (b"traceparent", draw.choice((b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", draw.randbytes(55)))),
            (b"user-agent", draw.randbytes(30)),
            (b"k-bin", draw.randbytes(12)),
            (draw.randbytes(6), draw.randbytes(12)),
            (b"content-length", draw.choice((b"0", b"-1", b"99999999999999999999"))),
            (b"x-pad", b"a" * draw.choice(_EDGES[:7])),
        )
        fields += [field for field in optional if draw.random() < 0.15]
        if self._wrong():
            draw.shuffle(fields)
        if self._wrong():
            del fields[draw.randrange(len(fields))]
        if self._wrong():
            fields.append(draw.choice(fields))
        return fields

    def _data(self) -> bytes:
        draw = self._draw
        body = draw.choice((b"", draw.randbytes(draw.randrange(200)), b"\x0a\x0caligner.v1.A", bytes(16_000)))
        length = len(body) if not self._wrong() else draw.choice(_EDGES)
        message = bytes([self._wrong()]) + (length & 0xFFFFFFFF).to_bytes(4, "big") + body
        return frame(
            0, draw.choice((0, 0, 0x1, 0x8 if self._wrong() else 0)), self._old_stream(), message[: draw.choice((3, 5, 99_999))]
        )

    def _settings(self) -> bytes:
        draw = self._draw
        if draw.random() < 0.3:
            return frame(4, 1, 0, b"" if not self._wrong() else b"\x00")
        few = ((4, (0, 1, 65_535, 2**31 - 1)), (5, (16_384, 2**24 - 1)), (1, (0, 4096)), (3, (0, 100)), (6, (0, 8192)))
        pairs = [(number, draw.choice(values)) for number, values in few if draw.random() < 0.4]
        if self._wrong():
            pairs.append((draw.choice(_SETTINGS), draw.choice(_EDGES)))
        return frame(4, 0, 0 if not self._wrong() else 1, b"".join(struct.pack("!HI", *pair) for pair in pairs))

    def _window_update(self) -> bytes:
        step = self._draw.choice(_EDGES) if self._wrong() else self._draw.choice((1, 100, 65_535))
        return frame(8, 0, self._draw.choice((0, self._old_stream())), step.to_bytes(4, "big"))

    def _ping(self) -> bytes:
        return frame(6, self._draw.choice((0, 1)), 0, self._draw.randbytes(8 if not self._wrong() else 7))

    def _reset(self) -> bytes:
        return frame(3, 0, self._old_stream(), self._draw.choice(_EDGES).to_bytes(4, "big"))

    def _continuation(self) -> bytes:
        if not self._wrong():
            return self._ping()
        return b"".join(frame(9, 0, self._old_stream(), literal(b"x", b"y")) for _ in range(self._draw.randrange(1, 20)))

    def _priority(self) -> bytes:
        return frame(2, 0, self._old_stream(), self._draw.randbytes(5 if not self._wrong() else 4))

    def _unknown(self) -> bytes:
        draw = self._draw
        kind = draw.randrange(256) if self._wrong() else draw.randrange(len(_KNOWN_TYPES), 256)
        length = draw.choice(_EDGES[:9]) if self._wrong() else None
        return frame(kind, draw.randrange(256), self._old_stream(), draw.randbytes(draw.randrange(30)), length)


async def attack(target: str, draw: random.Random) -> int:
    """One connection until the server closes it or it has sent its share; the frames sent."""
    peer = Peer(draw)
    connection = await Connection.open(target)
    ended = asyncio.create_task(connection.until_closed(WAIT_TIMEOUT))
    sent = 0
    try:
        if draw.random() < 0.98:
            await connection.send(PREFACE, frame(4, 0, 0, b""))
        while sent < FRAMES_A_CONNECTION and not connection.closed:
            several = [peer.next() for _ in range(draw.randrange(1, 20))]
            sent += len(several)
            async with asyncio.timeout(1):  # a server that does not read on is in its right
                await connection.send(*several)
            await asyncio.sleep(0)
    except (OSError, TimeoutError):
        pass
    finally:
        await connection.drop()
        ended.cancel()
        await asyncio.wait({ended})
    return sent


class _Errors(logging.Handler):
    """What was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "interceptors.access_log":  # which has calls of unknown methods at this level
            self.seen.append(self.format(record))


async def fuzz(frames: int, seed: int) -> None:
    """Raises AssertionError if a client is not served between two rounds, or if the server logged an error."""
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    began, sent, connections = time.monotonic(), 0, 0
    try:
        async with serving(engine=ScriptedEngine()) as server:
            while sent < frames:
                draws = [random.Random(f"{seed} {connections + number}") for number in range(TOGETHER)]
                sent += sum(await asyncio.gather(*(attack(server.address, draw) for draw in draws)))
                connections += TOGETHER
                async with connect(server.address) as channel:
                    info = await AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=WAIT_TIMEOUT)
                assert info.version
                assert not errors.seen, f"after connection {connections}: {errors.seen[0]}"
    finally:
        logging.getLogger().removeHandler(errors)
    seconds = time.monotonic() - began
    print(f"Done {sent} runs: frames on {connections} connections in {seconds:.0f} s, 0 dead listeners", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-runs", type=int, default=100_000, help="frames to send")
    parser.add_argument("-seed", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(fuzz(given.runs, given.seed))
