"""`python -m tests.chaos [--only TEXT] [--drains N]`: exit status 1 if a goal is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.chaos.faults import FAULTS
from tests.chaos.running import RECOVERY, chaos


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break a running prod server, part by part.")
    parser.add_argument("--only", default="", metavar="TEXT", help="the faults whose names hold this")
    parser.add_argument("--drains", type=int, default=20, metavar="N")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="servers that are killed beside another one")
    chosen = parser.parse_args()
    report = asyncio.run(chaos([fault for fault in FAULTS if chosen.only in fault.name], chosen.drains, chosen.kills))
    print(report.table())
    for line in report.wrong:
        print(f"FAULT {line}")
    print(f"goals: 0 lost, 0 bad, recovery within {RECOVERY:g} s, nothing left behind")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(_main())
