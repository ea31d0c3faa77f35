"""`python -m tests.soak [--seconds N]`: exit status 1 if a call ended as none should, or something grew."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.soak.clients import ROLES
from tests.soak.running import soak


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Many clients at a real prod server.")
    parser.add_argument("--seconds", type=float, default=600.0)
    chosen = parser.parse_args()
    print(f"{sum(role.clients for role in ROLES)} clients for {chosen.seconds:g} s", flush=True)
    report = asyncio.run(soak(chosen.seconds))
    print(report.table())
    for line in (*report.unexpected[:20], *report.grown, *report.faults):
        print(f"FAULT {line}")
    print(f"{len(report.unexpected)} unexpected errors, {len(report.grown)} figures that grew")
    return 1 if report.unexpected or report.grown or report.faults else 0


if __name__ == "__main__":
    sys.exit(_main())
