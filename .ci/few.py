"""Fail unless a test run broke a few tests and nothing else. Arguments: a JUnit report, the most that may have failed."""

from __future__ import annotations

import sys
from xml.etree import ElementTree


def main() -> int:
    root = ElementTree.parse(sys.argv[1]).getroot()  # noqa: S314 - pytest wrote it
    cases = list(root.iter("testcase"))
    broken = [case for case in cases if {part.tag for part in case} & {"failure", "error"}]
    for case in broken:
        print(f"  {case.get('classname')}::{case.get('name')}", file=sys.stderr)
    # None: what failed was not a test, as when pytest itself or a file could not be run.
    return 0 if cases and 0 < len(broken) <= int(sys.argv[2]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
