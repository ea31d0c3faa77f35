"""Requests with a good credential whose contents are the attack."""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from tests.attack.arena import ALIGN, INFO, STREAM, Arena, Attack, align, held, stream, unary, upload
from tests.e2e.test_bad_input import CASES, Case
from tests.hostile.corpus import CORPUS
from tests.hostile.hostile import DECODED, Hostile
from tests.kit.recordings import SPEECH, TRANSCRIPT

MIB = 1 << 20
MESSAGE = ("MESSAGE_MALFORMED", "PAYLOAD_INVALID", "CONFIG_MISSING", "LANGUAGE_INVALID", "ENCODING_UNKNOWN")
_AFTER_DECODING = ("AUDIO_TOO_SHORT", "AUDIO_EMPTY", "TRANSCRIPT_TOO_DENSE", "ALIGNMENT_FAILED")


def malformed() -> Iterator[Attack]:
    """Bytes that are not the message they should be, damaged ones, and messages in the wrong order."""

    async def sent(arena: Arena, body: bytes, *allowed: str) -> str:
        return held(await unary(arena.channel, ALIGN, body, arena.token), *allowed)

    async def streamed(arena: Arena, parts: list[bytes], *allowed: str) -> str:
        return held(await stream(arena.channel, STREAM, parts, arena.token), *allowed)

    draw = random.Random(1)
    for number in range(60):
        body = draw.randbytes(draw.choice((1, 2, 7, 50, 1000, 100_000)))
        if number % 2:
            body = b"\x0a" + body  # the first field, of a wrong length
        yield Attack(f"random {number}", lambda arena, body=body: sent(arena, body, *MESSAGE, "AUDIO_EMPTY", "TRANSCRIPT_EMPTY"))
        yield Attack(f"random stream {number}", lambda arena, body=body: streamed(arena, [body], *MESSAGE, "AUDIO_EMPTY"))
    good = align()
    for number in range(25):
        cut = good[: 1 + number * (len(good) - 2) // 24]
        reasons = (*MESSAGE, "AUDIO_EMPTY", "AUDIO_UNREADABLE")
        yield Attack(f"cut {number}", lambda arena, cut=cut, reasons=reasons: sent(arena, cut, *reasons))
    nested = b""
    for _ in range(200):
        nested = b"\x7a" + _varint(len(nested)) + nested
    wire = {
        "nested": nested, "group": b"\x0b" * 5000, "field zero": b"\x00\x01", "endless varint": b"\x08" + b"\xff" * 100,
        "length of 2^63": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "not UTF-8": b"\x0a\x05\x0a\x03\xff\xfe\xfd",
        "surrogate": b"\x0a\x05\x0a\x03\xed\xa0\x80", "unknown fields": b"\xfa\x7f\x01x" * 10_000,
    }  # fmt: skip
    for name, body in wire.items():
        yield Attack(name, lambda arena, body=body: sent(arena, body, *MESSAGE, "AUDIO_EMPTY", "TRANSCRIPT_EMPTY"))
        yield Attack(f"{name} in a stream", lambda arena, body=body: streamed(arena, [body], *MESSAGE, "MESSAGE_EMPTY"))
    config, audio = upload([SPEECH[:1000]])
    orders = {
        "audio first": ([audio, config], "CONFIG_MISSING"), "two configs": ([config, config], "CONFIG_REPEATED"),
        "config in the middle": ([config, audio, config], "CONFIG_REPEATED"), "empty message": ([config, b""], "MESSAGE_EMPTY"),
        "no audio": ([config], "AUDIO_EMPTY"), "nothing": ([], "CONFIG_MISSING"), "empty first": ([b""], "CONFIG_MISSING"),
        "a chunk of 2 MiB": ([config, pb.StreamAlignRequest(audio=bytes(2 * MIB)).SerializeToString()], "CHUNK_TOO_LARGE"),
    }  # fmt: skip
    for name, (parts, reason) in orders.items():
        # What is decoded while it comes may be found to be no audio before the next message is read.
        allowed = (reason, "RESOURCE_EXHAUSTED", *(["AUDIO_UNREADABLE"] if name == "config in the middle" else []))
        yield Attack(name, lambda arena, parts=parts, allowed=allowed: streamed(arena, parts, *allowed))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def rules() -> Iterator[Attack]:
    """Every broken rule of docs/errors.md that a request can break by itself."""

    async def sent(arena: Arena, case: Case) -> str:
        return held(await unary(arena.channel, ALIGN, case.request().SerializeToString(), arena.token), case.reason)

    for name, case in CASES.items():
        yield Attack(name, lambda arena, case=case: sent(arena, case))


def oversize() -> Iterator[Attack]:
    """More than a message, a call or a header may have; compressed as well."""

    async def large(arena: Arena, body: bytes, compression: grpc.Compression, path: str = ALIGN) -> str:
        allowed = (
            "AUDIO_TOO_LARGE",
            "REQUEST_TOO_LARGE",
            "RESOURCE_EXHAUSTED",
            "TRANSCRIPT_TOO_LONG",
            "LANGUAGE_INVALID",
            "MESSAGE_MALFORMED",
            "UNIMPLEMENTED",
            "COMPRESSION_REFUSED",
        )
        return held(await unary(arena.channel, path, body, arena.token, compression=compression), *allowed)

    bodies = {
        "audio of 11 MiB": lambda: align(bytes(11 * MIB)),
        "audio of 60 MiB": lambda: align(bytes(60 * MIB)),
        "transcript of 5 MiB": lambda: align(transcript="a " * (5 * MIB // 2)),
        "language of 8 MiB": lambda: align(language="en-" * (8 * MIB // 3)),
        "200,001 code points": lambda: align(transcript="\U0001f600" * 200_001),
        "unknown fields of 9 MiB": lambda: b"\xfa\x7f" + _varint(9 * MIB) + bytes(9 * MIB) + b"\xff",
    }
    for name, body in bodies.items():
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
            yield Attack(
                f"{name}, {compression.name}", lambda arena, body=body, compression=compression: large(arena, body(), compression)
            )
    yield Attack("server info with 9 MiB", lambda arena: large(arena, b"\x0a" + b"\xff" * 9 * MIB, grpc.Compression.Gzip, INFO))


def transcripts() -> Iterator[Attack]:
    """Text that hides, reorders or multiplies, with a good recording: refused, or answered in the caller's own words."""

    async def sent(arena: Arena, text: str) -> str:
        found = await unary(arena.channel, ALIGN, align(transcript=text), arena.token)
        refused = (
            "TRANSCRIPT_CHARACTER_REFUSED", "TRANSCRIPT_MARKS_EXCESSIVE", "TRANSCRIPT_TOO_DENSE", "TRANSCRIPT_NO_WORDS",
            "TRANSCRIPT_EMPTY", "TRANSCRIPT_TOO_LONG", "ALIGNMENT_FAILED",
        )  # fmt: skip
        if found.code == "OK":
            words = [word.text for word in pb.AlignResponse.FromString(found.messages[0]).words]
            return "" if all(word in text for word in words) else f"words that are not the caller's: {words[:3]}"
        return held(found, *refused)

    for point in (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, *range(0x80, 0xA0, 5), 0x202A, 0x202B, 0x202D, 0x202E,
                  0x2066, 0x2067, 0x2068, 0x2069, 0xE000, 0xF8FF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x10FFFF, 0xF0000, 0xE0001, 0xFEFF,
                  0x200B, 0x200D, 0x2028, 0xFFFC):  # fmt: skip
        yield Attack(f"U+{point:04X}", lambda arena, point=point: sent(arena, f"hello {chr(point)} wor{chr(point)}ld"))
    texts = {
        "31 marks": "a" + "\u0301" * 31, "100,000 marks": "a" + "\u0301" * 100_000, "a word of 200,000": "a" * 200_000,
        "100,000 words": "a " * 100_000, "digits": "9" * 100_000, "numbers": "1e999 " * 1000, "percents": "5% " * 3000,
        "ligatures": "\ufdfa " * 10_000, "hangul": "\u1100" * 10_000, "formula": "=cmd|'/C calc'!A1",
        "html": "<script>alert(1)</script>",
        "sql": "'; DROP TABLE keys; --", "log4j": "${jndi:ldap://127.0.0.1/x}", "template": "{{7*7}} %s %n {0.__class__}",
        "path": "../../../etc/passwd", "format": "%(asctime)s %x", "null": "a\\0b", "prompt": "<|audio_start|> <timestamp> hello",
        "dictionary": "</s> <s> <sil> [NOISE] ++SPN++", "grammar": "#JSGF V1.0; grammar x; public <y> = z;",
    }  # fmt: skip
    for name, text in texts.items():
        yield Attack(name, lambda arena, text=text: sent(arena, text))


def recordings() -> Iterator[Attack]:
    """The hostile corpus: files that lie, hide, overflow or never end."""

    async def sent(arena: Arena, case: Hostile) -> str:
        config = {"encoding": pb.AUDIO_ENCODING_UNSPECIFIED} if case.encoding.name == "CONTAINER" else None
        if config is None:
            return ""
        found = await unary(arena.channel, ALIGN, align(case.make(), "a"), arena.token)
        if DECODED in case.outcomes and (found.code == "OK" or found.reason in _AFTER_DECODING):
            return ""
        return held(found, *case.outcomes, "MALWARE_FOUND", "AUDIO_TOO_LARGE", "REQUEST_TOO_LARGE", "RESOURCE_EXHAUSTED")

    for name, case in CORPUS.items():
        yield Attack(name, lambda arena, case=case: sent(arena, case))


def integrity() -> Iterator[Attack]:
    """Audio that is not what its config declares."""

    async def sent(arena: Arena, reasons: tuple[str, ...], **config: object) -> str:
        return held(await unary(arena.channel, ALIGN, align(SPEECH, TRANSCRIPT, **config), arena.token), *reasons)

    size = len(SPEECH)
    for declared in (1, 100, size - 1):
        yield Attack(
            f"{declared} bytes declared", lambda arena, declared=declared: sent(arena, ("AUDIO_SURPLUS",), audio_bytes=declared)
        )
    for declared in (size + 1, size * 2, 1 << 40):
        reasons = ("AUDIO_INCOMPLETE", "AUDIO_TOO_LARGE")
        yield Attack(f"{declared} bytes declared", lambda arena, d=declared, r=reasons: sent(arena, r, audio_bytes=d))
    for digest in (bytes(32), b"\xff" * 32):
        yield Attack(
            f"digest {digest[:1].hex()}",
            lambda arena, digest=digest: sent(arena, ("AUDIO_DIGEST_MISMATCH",), audio_sha256=digest),
        )
    for length in (1, 16, 31, 33, 64):
        yield Attack(
            f"digest of {length}", lambda arena, length=length: sent(arena, ("PAYLOAD_INVALID",), audio_sha256=bytes(length))
        )
