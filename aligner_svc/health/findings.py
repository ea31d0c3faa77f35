"""Checks that run side by side, each with its time, and what they find."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from aligner_svc.telemetry.logs.redaction import Redactor

T = TypeVar("T")

_LONGEST = 500
"""Characters of what a finding says."""


class Severity(StrEnum):
    """How it is. `WARN`: it runs, and somebody should look. `FAIL`: it does not run, or not safely. `SKIP`: not asked for."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `hint`: what to do about it."""

    check: str
    state: Severity
    said: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`run` gives findings and does not raise. `seconds` it may take: of the command line's patience so many times."""

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    patience: float = 1.0


async def examine(checks: Sequence[Check], seconds: float, key_prefixes: Sequence[str] = ("alk",)) -> list[Finding]:
    """All of them at once; what they found, in their order. No check takes longer than `seconds` times its patience.

    Nothing that looks like a secret is in a finding, whoever put it there.
    """
    found = await asyncio.gather(*(_outcome(check, seconds * check.patience) for check in checks))
    return presentable([one for findings in found for one in findings], Redactor(key_prefixes))


def presentable(findings: Iterable[Finding], redactor: Redactor) -> list[Finding]:
    """On one line each, and without anything that looks like a secret."""

    def clean(text: str) -> str:
        return "".join(char if char.isprintable() else " " for char in redactor.text(text, limit=_LONGEST))

    return [replace(one, said=clean(one.said), hint=clean(one.hint)) for one in findings]


def listed(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """[{"check", "state", "said", "hint"}, ...], for JSON."""
    return [{"check": one.check, "state": one.state.value, "said": one.said, "hint": one.hint} for one in findings]


def unchecked(check: str, error: Exception) -> Finding:
    """A bug of a check, of which the name alone is told: its text may hold what it looked at."""
    hint = "a fault of this check, which says nothing of what it looks at: please report it"
    return Finding(check, Severity.WARN, f"could not be checked ({type(error).__name__})", hint)


async def _outcome(check: Check, seconds: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await check.run()
    except TimeoutError:
        return [
            Finding(
                check.name, Severity.FAIL, f"no answer within {seconds:g} s", "allow more with --timeout SECONDS, or look why"
            )
        ]
    except Exception as error:
        return [unchecked(check.name, error)]


async def in_thread(work: Callable[[], T]) -> T:
    """For what blocks. A thread that never comes back, as on a dead network file system, does not keep the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]  # what work returned

    def run() -> None:
        value: T | None = None
        failed: BaseException | None = None
        try:
            value = work()
        except BaseException as error:
            failed = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await done


def blocking(name: str, work: Callable[[], Sequence[Finding]], patience: float = 1.0) -> Check:
    """A check that runs in a thread of its own."""

    async def run() -> Sequence[Finding]:
        return await in_thread(work)

    return Check(name, run, patience)
