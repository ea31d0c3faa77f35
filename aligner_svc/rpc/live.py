"""One StreamAlign call whose words are sent while its audio still comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from aligner_svc.audio.arriving.spool import Spool
from aligner_svc.domain import Alignment, Word
from aligner_svc.engines.base import SHORT_SECONDS
from aligner_svc.errors import AlignerError, InvalidArgumentError
from aligner_svc.pipeline import Following
from aligner_svc.rpc.upload import Upload
from aligner_svc.rpc.work import charged_seconds, pass_scan, with_scan
from aligner_svc.workers import Buffer
from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.stages import add_stage

_PROGRESS_SECONDS: Final = 2.0
"""Between two messages of progress, at most: of time, and of audio whose words are final."""
_REPORT_BYTES: Final = 1 << 20
"""Of an upload, after which progress is reported as well."""
_CHARGED_SECONDS: Final = 10.0
"""Of audio that was worked on, that are charged at a time."""


class LiveCall:
    """A client that fetches nothing before it has sent all does not hold up its own upload: its words are kept for it.

    So are those of an upload that is scanned, until it has passed.
    """

    def __init__(self, upload: Upload, following: Following, context: Context, spool: Spool | None = None) -> None:
        """`spool`: for an upload that is scanned, which may have to be sent to the scanner again; closed at the end."""
        self._spool = spool
        self._failed: AlignerError | None = None
        self._scan_seconds = 0.0
        self._upload = upload
        self._following = following
        self._context = context
        self._words: list[Word] = []
        self._due = False
        self._news = asyncio.Event()
        self._reported_bytes = -_REPORT_BYTES
        self._reported_seconds = self._charged = self._charged_text = 0.0
        self._consumed = 0

    async def responses(self) -> AsyncGenerator[Sequence[Word] | Alignment | None, None]:
        """None: there is progress. Words as they are final; last the alignment without them.

        Raises AlignerError and CallRefusedError.
        """
        running = asyncio.create_task(self._run())
        running.add_done_callback(lambda _: self._news.set())
        try:
            while not running.done():
                try:
                    async with asyncio.timeout(_PROGRESS_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    self._due = True
                self._news.clear()
                if self._due and not running.done():
                    self._due = False
                    yield None
                if self._spool is None and self._words:
                    words, self._words = self._words, []
                    yield words
            if running.cancelled():
                return  # the client has left
            alignment = await running
            if self._words:
                yield self._words
            yield alignment
        finally:
            running.cancel()
            self._following.close()
            await asyncio.wait((running,))
            if self._spool is not None:
                self._spool.close()
            del running  # its error has this frame in its traceback: a cycle that would keep the call until it is collected

    async def _run(self) -> Alignment:
        reading = asyncio.create_task(self._read())
        aligning = asyncio.create_task(self._align())
        try:
            await asyncio.wait((reading, aligning), return_when=asyncio.FIRST_EXCEPTION)
            if not reading.done() and isinstance(error := aligning.exception(), InvalidArgumentError) and self._spool is not None:
                self._give_up(error)
            if reading.done() or self._failed is not None:
                await reading
            alignment = await aligning
            return alignment if self._spool is None else with_scan(alignment, self._scan_seconds, 0.0)
        finally:
            for task in (reading, aligning):
                task.cancel()
            await asyncio.wait((reading, aligning))
            del reading, aligning, task

    async def _read(self) -> None:
        """Hand on what comes, and charge for what was worked on."""
        call, following = current_call(), self._following
        async for piece in self._upload.pieces():
            if isinstance(piece, str):
                await following.text(piece)
                await self._charge_text(call)
            else:
                await self._hear(piece)
                await self._settle(call)
                if self._upload.received - self._reported_bytes >= _REPORT_BYTES:
                    self._reported_bytes = self._upload.received
                    self._tell()
        if self._context.cancelled() or self._context.done():
            raise asyncio.CancelledError  # a client that disconnects looks like the end of its upload
        await self._pass_scan(call)
        if self._failed is not None:
            raise self._failed
        await following.end()
        self._tell()

    async def _hear(self, piece: Buffer) -> None:
        if self._spool is not None:
            await self._spool.add(piece)
        try:
            await self._following.audio(piece)
        except InvalidArgumentError as error:
            if self._spool is None:
                raise
            self._give_up(error)

    def _give_up(self, error: AlignerError) -> None:
        """Read on for the scanner alone: what it finds takes precedence over everything else that is wrong with an upload."""
        self._failed = self._failed or error
        self._following.abandon()

    async def _pass_scan(self, call: Call | None) -> None:
        """Raises CallRefusedError if the upload, which has ended, is not to be answered."""
        if self._spool is not None and call is not None and call.scan is not None:
            self._scan_seconds = await pass_scan(call.scan, await self._spool.content())

    async def _align(self) -> Alignment:
        call, following = current_call(), self._following
        await following.begun()
        if call is None or call.admission is None:
            return await self._follow(call)
        if not following.ended:
            # It holds no place while its speaker is waited for; the engine bounds how many of these there are.
            call.admission.followed()
            return await self._follow(call)
        async with call.admission.working() as timer:
            if following.seconds > SHORT_SECONDS:
                await call.admission.prolong()
            alignment = await self._follow(call)
            timing = alignment.timing
            timer.waited, timer.worked = timing.queue, timing.decode + timing.align
            return alignment

    async def _follow(self, call: Call | None) -> Alignment:
        began = time.perf_counter()
        following = self._following
        alignment = await following.run(self._add, self._progressed)
        timing = alignment.timing
        if call is not None and call.meter is not None:
            await call.meter.decoded(alignment.audio_seconds)
        add_stage(
            "decode",
            began,
            timing.decode,
            bytes=self._upload.received,
            container=following.container,
            audio_seconds=alignment.audio_seconds,
        )
        add_stage("queue", began, timing.queue)
        add_stage("align", began, timing.align, words=following.words)
        return alignment

    async def _settle(self, call: Call | None) -> None:
        """Charge what was worked on, and give back the memory of what is not needed any more."""
        if call is None:
            return
        aligned = self._following.aligned
        if call.meter is not None and aligned - self._charged >= _CHARGED_SECONDS:
            self._charged = aligned
            await call.meter.worked(aligned)
        consumed = int(self._upload.received * self._following.released)
        if call.admission is not None and consumed > self._consumed:
            call.admission.consumed(consumed - self._consumed)
            self._consumed = consumed

    async def _charge_text(self, call: Call | None) -> None:
        seconds = charged_seconds(self._upload.characters)
        if call is not None and call.meter is not None and seconds > self._charged_text:
            await call.meter.text(seconds - self._charged_text)
            self._charged_text = seconds

    def _add(self, words: Sequence[Word]) -> None:
        self._words.extend(words)
        self._news.set()

    def _progressed(self) -> None:
        if self._following.aligned - self._reported_seconds >= _PROGRESS_SECONDS:
            self._reported_seconds = self._following.aligned
            self._tell()

    def _tell(self) -> None:
        self._due = True
        self._news.set()
