"""A test that fails beside others and passes alone fails CI, unless it is listed with a reason."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests import PROJECT

SCRIPT = PROJECT / ".ci" / "flaky.py"
LISTED = "# a comment\n\ntests.a::test_listed[x: y]  # the port may be taken\n"


def report(file: Path, **outcomes: str) -> str:
    """A JUnit report: "passed", "failure", "error" or "skipped" by test."""
    cases = (f'<testcase classname="tests.a" name="{name}"><{tag}/></testcase>' for name, tag in outcomes.items())
    file.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return str(file)


def verdict(monkeypatch, tmp_path: Path, first: dict[str, str], alone: dict[str, str], listed: str = LISTED) -> int:
    (tmp_path / "flaky.txt").write_text(listed)
    (tmp_path / "flaky.py").write_text(SCRIPT.read_text())
    reports = [report(tmp_path / "first.xml", **first), report(tmp_path / "alone.xml", **alone)]
    monkeypatch.setattr("sys.argv", ["flaky.py", *reports])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tmp_path / "flaky.py"), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize(
    ("first", "alone", "expected"),
    [
        ({"test_a": "failure", "test_b": "passed"}, {"test_a": "failure"}, "FAILED  tests.a::test_a"),
        ({"test_a": "error"}, {"test_a": "passed"}, "FLAKY   tests.a::test_a"),
        ({"test_listed[x: y]": "failure"}, {"test_listed[x: y]": "failure"}, "FAILED  tests.a::test_listed[x: y]"),
        ({"test_listed[x: y]": "failure", "test_a": "failure"}, {"test_listed[x: y]": "passed"}, "FAILED  tests.a::test_a"),
        ({"test_a": "passed"}, {}, "none of its tests"),
        ({}, {}, "none of its tests"),
    ],
)
def test_a_failure_stays_a_failure_and_is_named(monkeypatch, tmp_path, capsys, first, alone, expected) -> None:
    assert verdict(monkeypatch, tmp_path, first, alone) == 1
    assert expected in capsys.readouterr().err


def test_a_listed_test_that_passes_alone_is_excused_with_its_reason(monkeypatch, tmp_path, capsys) -> None:
    assert verdict(monkeypatch, tmp_path, {"test_listed[x: y]": "failure"}, {"test_listed[x: y]": "passed"}) == 0
    assert capsys.readouterr().err == "excused tests.a::test_listed[x: y]: the port may be taken\n"


def test_a_line_without_a_reason_is_refused(monkeypatch, tmp_path) -> None:
    with pytest.raises(ValueError, match="no reason given"):
        verdict(monkeypatch, tmp_path, {"test_a": "failure"}, {"test_a": "passed"}, listed="tests.a::test_a\n")
