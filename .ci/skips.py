"""Fail when a test was skipped for a reason CI could have removed. Argument: a JUnit report."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

# What no CI machine has. A test says it so: pytest.skip("needs a GPU").
ALLOWED = re.compile(r"needs (a GPU|model weights|IPv6)")


def main() -> int:
    root = ElementTree.parse(sys.argv[1]).getroot()  # noqa: S314 - pytest wrote it
    skips = [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message") or "")
        for case in root.iter("testcase")
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]
    bad = [(test, why) for test, why in skips if not ALLOWED.search(why)]
    print(f"{len(skips)} skipped, {len(bad)} of them wrongly")
    for test, why in bad:
        print(f"  {test}: {why}", file=sys.stderr)
    if not list(root.iter("testcase")):
        print("no test ran", file=sys.stderr)
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
