"""A stream that is followed and scanned: nothing leaves before the verdict, and nothing hides an infected upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from aligner_svc.audio.arriving.spool import Spool, SpoolRoom
from aligner_svc.domain import Alignment, Word, WordStatus
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.rpc.live import LiveCall
from interceptors.calls.call import Call, enter_call
from interceptors.calls.refusal import CallRefusedError

WORD = Word("a", 0.0, 1.0, 0.9, WordStatus.ALIGNED, 0, 1)
MEBIBYTE = bytes(range(256)) * 4096


class Pieces:
    """An upload of three messages."""

    received = len(MEBIBYTE) * 3
    characters = 1

    async def pieces(self) -> AsyncIterator[bytes]:
        for number in range(3):
            yield MEBIBYTE[number:] + MEBIBYTE[:number]


class Followed:
    """Finds a word in the first message, and fails on it with `error`."""

    seconds = aligned = released = 0.0
    container = "wav"
    words = 1
    ended = False

    def __init__(self, error: InvalidArgumentError | None) -> None:
        self.error = error
        self.heard = 0
        self.abandoned = False
        self.found = asyncio.Event()
        self.all_heard = asyncio.Event()

    async def begun(self) -> None: ...

    async def audio(self, chunk: bytes) -> None:
        self.heard += 1
        if self.error is not None and not self.abandoned:
            raise self.error

    async def end(self) -> None:
        self.all_heard.set()

    async def run(self, on_words, on_progress) -> Alignment:
        on_words([WORD])
        self.found.set()
        await self.all_heard.wait()
        return Alignment((), 3.0, "engine", "en", 1.0)

    def abandon(self) -> None:
        self.abandoned = True

    def close(self) -> None: ...


class Scanner:
    """Keeps what it is given until `verdict` is set: None, or the refusal."""

    skipped = False

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.content = b""

    async def received(self, message: object) -> None: ...

    async def verdict(self, content: memoryview) -> None:
        self.content = bytes(content)
        self.asked.set()
        await self.answer


class Connected:
    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False


class Scanned:
    """One call."""

    def __init__(self, error: InvalidArgumentError | None = None) -> None:
        self.followed, self.scanner, self.room = Followed(error), Scanner(), SpoolRoom(1 << 30)
        enter_call(Call("/aligner.v1.Aligner/StreamAlign", "ipv4:127.0.0.1:1", scan=self.scanner))
        self.answers: list[object] = []
        live = LiveCall(Pieces(), self.followed, Connected(), Spool(self.room))  # type: ignore[arg-type]
        self.task = asyncio.create_task(self._collect(live))

    async def _collect(self, live: LiveCall) -> None:
        async for answer in live.responses():
            self.answers.append(answer)


INFECTED = CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MALWARE_FOUND", "the virus scanner found malware in the upload")


async def test_words_wait_for_the_verdict():
    call = Scanned()
    await call.scanner.asked.wait()
    assert call.followed.found.is_set()
    assert call.followed.heard == 3
    assert call.answers.count(None) == len(call.answers), "something left before the verdict"
    call.scanner.answer.set_result(None)
    await call.task
    words, alignment = [answer for answer in call.answers if answer is not None]
    assert words == [WORD]
    assert isinstance(alignment, Alignment)
    assert call.room.left == 1 << 30


@pytest.mark.parametrize("infected", [False, True])
async def test_the_scanner_gets_all_of_an_upload_that_cannot_be_decoded(infected):
    call = Scanned(InvalidArgumentError("AUDIO_UNREADABLE", "it is damaged", field="audio"))
    await call.scanner.asked.wait()
    assert call.scanner.content == b"".join([piece async for piece in Pieces().pieces()])
    if infected:
        call.scanner.answer.set_exception(INFECTED)
    else:
        call.scanner.answer.set_result(None)
    with pytest.raises(CallRefusedError if infected else InvalidArgumentError) as refused:
        await call.task
    assert refused.value.reason == ("MALWARE_FOUND" if infected else "AUDIO_UNREADABLE")
    assert call.answers.count(None) == len(call.answers)
    assert call.room.left == 1 << 30
