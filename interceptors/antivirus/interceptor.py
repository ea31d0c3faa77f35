"""Nothing that ClamAV has not seen is worked on, and nothing that it finds something in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import grpc

from interceptors.antivirus.clamav import ScanFailedError, ScannerUnavailableError, TooLargeError
from interceptors.antivirus.scanner import Antivirus, digest_of
from interceptors.antivirus.session import ScanSession
from interceptors.antivirus.verdicts import Infected
from interceptors.audit import of_call
from interceptors.calls.call import Context, current_call
from interceptors.calls.hooks import Buffer
from interceptors.calls.refusal import BrokenRule, CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.handlers.base import CallInterceptor

log = logging.getLogger("interceptors.antivirus.scan")

CHECK = "malware"
"""Of the audit log's events."""
_RETRY_AFTER = 5.0
"""Seconds: a scanner that is restarted reads its signatures for as long."""

Extract = Callable[[Any], Buffer | None]
"""The part of a request message that is to be scanned; None where there is none."""
Skip = Callable[[Any], bool]
"""Whether a call that begins with this message need not be scanned."""


class Scan(CallInterceptor):
    """Gives every call a `ScanCall`, which Requests feeds and the servicer awaits.

    `streams`: methods that are scanned while they come in. `skip` is asked once for each call, with its first message.
    `field`: of a request, which refusals name. `fail_open`: while clamd is away uploads pass, each with a record, instead of
    being refused. Even then what clamd was asked about and gave no verdict on does not pass: a file can be made to do that.
    """

    def __init__(
        self,
        antivirus: Antivirus,
        *,
        extract: Extract,
        skip: Skip,
        streams: Collection[str],
        exempt: Collection[str],
        record: Record,
        field: str = "",
        fail_open: bool = False,
    ) -> None:
        self._antivirus = antivirus
        self._extract = extract
        self._skip = skip
        self._streams = frozenset(streams)
        self._exempt = frozenset(exempt)
        self._verdicts = _Verdicts(antivirus, record, field, fail_open)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        call = current_call()
        if call is None or method in self._exempt:
            yield
            return
        async with self._antivirus.session() as session:
            streamed = session if method in self._streams else None
            call.scan = ScanCall(self._antivirus, self._verdicts, streamed, self._extract, self._skip)
            yield


class ScanCall:
    """Of one call: `interceptors.antivirus.scanning.Scanning`. `session` where it is scanned while it comes in."""

    def __init__(
        self, antivirus: Antivirus, verdicts: _Verdicts, session: ScanSession | None, extract: Extract, skip: Skip
    ) -> None:
        self._antivirus = antivirus
        self._verdicts = verdicts
        self._session = session
        self._extract = extract
        self._skip = skip
        self._skipped: bool | None = None

    async def received(self, message: Any) -> None:
        """Raises RefusedError where it is too much to be scanned."""
        if self._skipped is None:
            self._skipped = self._skip(message)
        if self._skipped or self._session is None:
            return
        part = self._extract(message)
        if part:
            try:
                await self._session.feed(part)
            except TooLargeError as error:
                raise self._verdicts.too_large(error) from None

    async def verdict(self, content: Buffer) -> None:
        """Raises RefusedError: infected, too large, or nobody can tell. A call of which nothing was received is scanned."""
        if self._skipped:
            return
        scanned = self._antivirus.scan(content) if self._session is None else self._session.finish(content)
        try:
            verdict = await scanned
        except TooLargeError as error:
            raise self._verdicts.too_large(error) from None
        except ScannerUnavailableError as error:
            self._verdicts.missing(error)
        else:
            if isinstance(verdict, Infected):
                sha256 = self._session.sha256 if self._session is not None else (await digest_of(content)).hex()
                raise self._verdicts.infected(verdict, sha256)


class _Verdicts:
    """What follows from each."""

    def __init__(self, antivirus: Antivirus, record: Record, field: str, fail_open: bool) -> None:
        self._antivirus = antivirus
        self._record = record
        self._field = field
        self._fail_open = fail_open

    def infected(self, verdict: Infected, sha256: str) -> CallRefusedError:
        detail = f"sha256 {sha256} signature {verdict.signature}"
        self._record(of_call(SecurityEvent(Event.MALWARE_FOUND, CHECK, detail=detail), current_call()))
        # Not which: whoever tries out what gets past the scanner would like to know.
        message = "the virus scanner found malware in the upload"
        return self._refused(grpc.StatusCode.INVALID_ARGUMENT, "MALWARE_FOUND", message)

    def missing(self, error: ScannerUnavailableError) -> None:
        if not self._fail_open or isinstance(error, ScanFailedError):
            message = "the virus scanner gives no verdict at the moment, and nothing is worked on without one; try again later"
            raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, "ANTIVIRUS_UNAVAILABLE", message, retry_after=_RETRY_AFTER)
        self._antivirus.counts["skipped"] += 1
        call = current_call()
        log.warning("antivirus: call %s was not scanned: %s", call.request_id if call else "", error)
        self._record(of_call(SecurityEvent(Event.SCAN_SKIPPED, CHECK, detail=str(error)), call))

    def too_large(self, error: TooLargeError) -> CallRefusedError:
        message = f"the upload cannot be scanned for viruses: {error}"
        return self._refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_TOO_LARGE_TO_SCAN", message)

    def _refused(self, code: grpc.StatusCode, reason: str, message: str) -> CallRefusedError:
        broken = (BrokenRule(self._field, reason, message),) if self._field else ()
        return CallRefusedError(code, reason, message, broken=broken)
