"""Checks run concurrently, each with its timeout, and give findings without secrets."""

from __future__ import annotations

import asyncio
import threading

from aligner_svc.health.findings import Check, Finding, Severity, blocking, examine


def test_checks_run_concurrently_each_with_its_timeout() -> None:
    together = threading.Barrier(2)
    stuck = threading.Event()

    def meet() -> list[Finding]:
        together.wait(30)
        return [Finding("met", Severity.OK, "well")]

    async def hang() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    def fail() -> list[Finding]:
        raise ValueError("the password is hunter2")

    def block() -> list[Finding]:
        stuck.wait(60)
        return []

    found = asyncio.run(
        examine(
            [blocking("a", meet), blocking("b", meet), Check("c", hang, 0.01), blocking("d", fail), blocking("e", block, 0.01)],
            10.0,
        )
    )
    stuck.set()
    assert [one.severity for one in found] == [Severity.OK, Severity.OK, Severity.FAIL, Severity.WARN, Severity.FAIL]
    assert "no answer within 0.1 s" in found[2].message
    assert "ValueError" in found[3].message
    assert "hunter2" not in str(found)


def test_a_secret_in_a_finding_is_removed() -> None:
    async def careless() -> list[Finding]:
        return [Finding("x", Severity.FAIL, "redis://:hunter2@cache\x1b[2J", "authorization: Bearer hunter2hunter2")]

    (found,) = asyncio.run(examine([Check("x", careless)], 5.0))
    assert "hunter2" not in str(found)
    assert "\x1b" not in found.message
