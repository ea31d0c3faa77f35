"""Fail when a test was skipped for a reason that CI could have removed. Argument: a JUnit report."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

# What no CI machine has. A test says so: pytest.skip("needs a GPU").
ALLOWED = re.compile(r"needs (a GPU|model weights|IPv6)")


def main() -> int:
    cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it
    skips = [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message") or "")
        for case in cases
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]
    refused = [(test, reason) for test, reason in skips if not ALLOWED.search(reason)]
    print(f"{len(skips)} skipped, {len(refused)} of them without a reason that CI accepts")
    for test, reason in refused:
        print(f"  {test}: {reason}", file=sys.stderr)
    if not cases:
        print("no test ran", file=sys.stderr)
    return 0 if cases and not refused else 1


if __name__ == "__main__":
    raise SystemExit(main())
