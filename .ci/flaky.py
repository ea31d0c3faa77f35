"""Fail unless each test that failed in the first JUnit report passes in the second, alone, and is listed in .ci/flaky.txt."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

LISTED = Path(__file__).with_name("flaky.txt")


def outcomes(report: str) -> dict[str, bool]:
    """Whether each test passed. Empty if pytest wrote no report."""
    if not Path(report).is_file():
        return {}
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    passed: dict[str, bool] = {}
    for case in cases:  # a test whose teardown fails is there twice
        name = f"{case.get('classname')}::{case.get('name')}"
        passed[name] = passed.get(name, True) and not {part.tag for part in case} & {"failure", "error"}
    return passed


def listed(text: str) -> dict[str, str]:
    """Reasons by test. Raises ValueError for a line without one."""
    entries = [line.partition("  # ") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if bare := [test for test, _, reason in entries if not reason.strip()]:
        raise ValueError(f"{LISTED.name}: no reason given for {bare}")
    return {test.strip(): reason.strip() for test, _, reason in entries}


def main() -> int:
    first, alone = outcomes(sys.argv[1]), outcomes(sys.argv[2])
    reasons = listed(LISTED.read_text(encoding="utf-8"))
    broken = [test for test, passed in first.items() if not passed]
    excused = [test for test in broken if alone.get(test) and test in reasons]
    for test in broken:
        if not alone.get(test):
            print(f"FAILED  {test}", file=sys.stderr)
        elif test not in reasons:
            print(f"FLAKY   {test}: passes alone only; mend it, or list it in {LISTED.name} with a reason", file=sys.stderr)
        else:
            print(f"excused {test}: {reasons[test]}", file=sys.stderr)
    if not broken:
        print("the run failed, but none of its tests: see its output", file=sys.stderr)
    return 0 if broken and excused == broken else 1


if __name__ == "__main__":
    raise SystemExit(main())
