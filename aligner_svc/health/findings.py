"""What checks find, and running them concurrently with a timeout each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from aligner_svc.telemetry.logs.redaction import Redactor

T = TypeVar("T")

_MAX_TEXT = 500
"""Characters of a finding's message."""


class Severity(StrEnum):
    """`WARN`: it works, but needs attention. `FAIL`: it does not work, or not safely. `SKIP`: the settings do not use it."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check. `hint`: what to do about it."""

    check: str
    severity: Severity
    message: str
    hint: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check, Severity.OK, message)


def warn(check: str, message: str, hint: str) -> Finding:
    return Finding(check, Severity.WARN, message, hint)


def fail(check: str, message: str, hint: str) -> Finding:
    return Finding(check, Severity.FAIL, message, hint)


def skip(check: str, message: str) -> Finding:
    return Finding(check, Severity.SKIP, message)


@dataclass(frozen=True, slots=True)
class Check:
    """`run` does not raise. `timeout_factor`: a check that is known to be slow gets that many times the timeout of the others."""

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    timeout_factor: float = 1.0


async def examine(checks: Sequence[Check], seconds: float, key_prefixes: Sequence[str] = ("alk",)) -> list[Finding]:
    """Run all checks concurrently, each for at most `seconds` times its factor; their findings in order, without secrets."""
    found = await asyncio.gather(*(_outcome(check, seconds * check.timeout_factor) for check in checks))
    return presentable([one for findings in found for one in findings], Redactor(key_prefixes))


def presentable(findings: Iterable[Finding], redactor: Redactor) -> list[Finding]:
    """The findings on one line each, without anything that looks like a secret."""

    def clean(text: str) -> str:
        return "".join(char if char.isprintable() else " " for char in redactor.text(text, limit=_MAX_TEXT))

    return [replace(one, message=clean(one.message), hint=clean(one.hint)) for one in findings]


def listed(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """[{"check", "state", "said", "hint"}, ...], for JSON."""
    return [{"check": one.check, "state": one.severity.value, "said": one.message, "hint": one.hint} for one in findings]


def check_failed(check: str, error: Exception) -> Finding:
    """The finding of a check that has a bug. Names only the error's type, as its text may hold a secret."""
    hint = "a bug of this check, which says nothing about what it checks: please report it"
    return warn(check, f"could not be checked ({type(error).__name__})", hint)


async def _outcome(check: Check, seconds: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await check.run()
    except TimeoutError:
        hint = "allow more time with --timeout SECONDS, or find out why it is slow"
        return [fail(check.name, f"no answer within {seconds:g} s", hint)]
    except Exception as error:
        return [check_failed(check.name, error)]


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking `work` on a daemon thread: one that hangs, e.g. on a dead network file system, does not keep the process."""
    future = Future[T]()

    def run() -> None:
        with suppress(InvalidStateError):  # cancelled by its timeout
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await asyncio.wrap_future(future)


def blocking(name: str, work: Callable[[], Sequence[Finding]], timeout_factor: float = 1.0) -> Check:
    """A check that runs on a thread."""

    async def run() -> Sequence[Finding]:
        return await in_thread(work)

    return Check(name, run, timeout_factor)
