"""The checks of the machine and its kernel."""

from __future__ import annotations

import os

import pytest

from aligner_svc.config import Settings
from aligner_svc.doctor import machine
from aligner_svc.health.findings import Severity
from tests.aligner_svc.doctor import severities

PROD = {"server": {"profile": "prod"}, "auth": {"methods": ["api_key"]}}


async def test_the_sandbox_is_tried_in_a_process_of_its_own() -> None:
    (found,) = await machine.sandbox(Settings(decode={"sandbox": "best-effort"}))
    assert found.severity in {Severity.OK, Severity.WARN}
    assert "no_new_privs" in found.message
    assert severities(await machine.sandbox(Settings(decode={"sandbox": "off"}))) == [Severity.SKIP]
    assert severities(await machine.sandbox(Settings(**PROD, decode={"sandbox": "off"}))) == [Severity.WARN]


async def test_a_missing_layer_of_a_required_sandbox_fails() -> None:
    incomplete = 'import os; os.write(1, b\'[["rlimits"], {"landlock": "the kernel has none"}]\')'
    assert severities(await machine.sandbox(Settings(decode={"sandbox": "required"}), incomplete)) == [Severity.FAIL]
    (found,) = await machine.sandbox(Settings(), incomplete)
    assert (found.severity, "no landlock: the kernel has none" in found.message) == (Severity.WARN, True)
    assert severities(await machine.sandbox(Settings(), "raise SystemExit(1)")) == [Severity.FAIL]


def test_too_few_descriptors_for_the_connections_are_a_warning(monkeypatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, 4096))
    (found,) = machine.open_files(Settings(connections={"most": 1000}))
    assert (found.severity, "ulimit -n" in found.hint) == (Severity.WARN, True)
    assert severities(machine.open_files(Settings(connections={"most": 100}))) == [Severity.OK]


@pytest.mark.parametrize(
    ("quota", "state"), [("max 100000", Severity.OK), ("50000 100000", Severity.WARN), ("800000 100000", Severity.OK)]
)
def test_more_workers_than_the_quota_of_the_control_group_are_a_warning(tmp_path, quota, state) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    workers = {"workers": min(2, len(os.sched_getaffinity(0))) if "max" in quota or "8" in quota else 2}
    (found,) = machine.cpu(Settings(engine=workers), tmp_path)
    assert found.severity is state


def test_a_clock_in_the_past_fails(monkeypatch) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000_000.0)
    assert severities(machine.clock()) == [Severity.FAIL]
    monkeypatch.setattr(machine.time, "time", lambda: 1_900_000_000.0)
    for unsynchronised, state in ((True, Severity.WARN), (False, Severity.OK)):
        monkeypatch.setattr(machine, "_unsynchronised", lambda it=unsynchronised: it)
        assert severities(machine.clock()) == [state]
