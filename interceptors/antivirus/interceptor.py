"""Refuses uploads that ClamAV finds malware in, or has not scanned."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from interceptors.antivirus.clamav import ScanFailedError, ScannerUnavailableError, TooLargeError
from interceptors.antivirus.digest import sha256
from interceptors.antivirus.scanner import Antivirus
from interceptors.antivirus.session import ScanSession
from interceptors.antivirus.verdicts import Infected
from interceptors.calls.call import Context, current_call
from interceptors.calls.hooks import Buffer
from interceptors.calls.refusal import BrokenRule, CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent, of_call
from interceptors.handlers.base import CallInterceptor

log = logging.getLogger("interceptors.antivirus.scan")

CHECK = "malware"
"""The `check` of audit events."""
_RETRY_AFTER = 5.0
"""Seconds: what clamd takes to load its signatures after a restart."""


@dataclass(frozen=True, slots=True)
class ScanRules:
    """What is scanned, and what follows from a verdict."""

    extract: Callable[[Any], Buffer | None]
    """The part of a request message to scan; None if it has none."""
    skip: Callable[[Any], bool]
    """Whether a call that begins with this message may go unscanned."""
    record: Record
    field: str = ""
    """The request's field that refusals name."""
    fail_open: bool = False
    """While clamd is unavailable uploads pass, each with a record, instead of being refused. Uploads that clamd failed on never
    pass: a file can be made to cause that."""


class Scan(CallInterceptor):
    """Gives every call a `ScanCall`, which Requests feeds and the servicer awaits.

    `streams`: methods that are scanned while they come in. `exempt`: methods that are not scanned.
    """

    def __init__(self, antivirus: Antivirus, rules: ScanRules, *, streams: Collection[str], exempt: Collection[str]) -> None:
        self._antivirus = antivirus
        self._rules = rules
        self._streams = frozenset(streams)
        self._exempt = frozenset(exempt)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        call = current_call()
        if call is None or method in self._exempt:
            yield
            return
        async with self._antivirus.session() as session:
            call.scan = ScanCall(self._antivirus, self._rules, session if method in self._streams else None)
            yield


class ScanCall:
    """The scan of one call. `session`: if the upload is scanned while it comes in."""

    def __init__(self, antivirus: Antivirus, rules: ScanRules, session: ScanSession | None) -> None:
        self._antivirus = antivirus
        self._rules = rules
        self._session = session
        self._skipped: bool | None = None

    @property
    def skipped(self) -> bool:
        """See hooks.UploadScan."""
        return bool(self._skipped)

    async def received(self, message: Any) -> None:
        """Raises CallRefusedError if the upload is too large to be scanned."""
        if self._skipped is None:
            self._skipped = self._rules.skip(message)
        if self._skipped or self._session is None:
            return
        part = self._rules.extract(message)
        if part:
            try:
                await self._session.feed(part)
            except TooLargeError as error:
                raise self._too_large(error) from None

    async def verdict(self, content: Buffer) -> None:
        """Raises CallRefusedError: infected, too large, or no verdict. A call without any message is scanned too."""
        if self._skipped:
            return
        session = self._session
        try:
            verdict = await (self._antivirus.scan(content) if session is None else self._antivirus.finish(session, content))
        except TooLargeError as error:
            raise self._too_large(error) from None
        except ScannerUnavailableError as error:
            self._pass_unscanned(error)
        else:
            if isinstance(verdict, Infected):
                digest = await sha256(content) if session is None else session.sha256
                raise self._infected(verdict, digest.hex())

    def _infected(self, verdict: Infected, digest: str) -> CallRefusedError:
        detail = f"sha256 {digest} signature {verdict.signature}"
        self._rules.record(of_call(SecurityEvent(Event.MALWARE_FOUND, CHECK, detail=detail), current_call()))
        # Without the signature, which would help to craft an upload that passes.
        return self._refused(grpc.StatusCode.INVALID_ARGUMENT, "MALWARE_FOUND", "the virus scanner found malware in the upload")

    def _pass_unscanned(self, error: ScannerUnavailableError) -> None:
        """Raises CallRefusedError unless uploads may pass without a verdict."""
        if not self._rules.fail_open or isinstance(error, ScanFailedError):
            message = "uploads cannot be scanned for viruses right now, and none is accepted unscanned; retry"
            raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, "ANTIVIRUS_UNAVAILABLE", message, retry_after=_RETRY_AFTER)
        self._antivirus.counts["skipped"] += 1
        call = current_call()
        log.warning("antivirus: call %s was not scanned: %s", call.request_id if call else "", error)
        self._rules.record(of_call(SecurityEvent(Event.SCAN_SKIPPED, CHECK, detail=str(error)), call))

    def _too_large(self, error: TooLargeError) -> CallRefusedError:
        message = f"the upload cannot be scanned for viruses: {error}"
        return self._refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_TOO_LARGE_TO_SCAN", message)

    def _refused(self, code: grpc.StatusCode, reason: str, message: str) -> CallRefusedError:
        broken = (BrokenRule(self._rules.field, reason, message),) if self._rules.field else ()
        return CallRefusedError(code, reason, message, broken=broken)
