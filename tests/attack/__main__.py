"""`python -m tests.attack [--short] [--only KIND]...`: exit status 1 if an attack got through or a goal is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.attack.kinds import KINDS
from tests.attack.running import HEADS, MAX_HEALTH_MS, MAX_MEMORY_MB, Row, arena, attack


async def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description="Attack a real server of the prod profile.")
    parser.add_argument("--short", action="store_true", help="some attacks of every kind, for CI")
    parser.add_argument("--only", action="append", metavar="KIND", choices=[kind.name for kind in KINDS])
    chosen = parser.parse_args()
    kinds = [kind for kind in KINDS if not chosen.only or kind.name in chosen.only]
    async with arena() as running:
        print(HEADS)
        report = await attack(running, kinds, short=chosen.short, shown=_show)
    print(report.total())
    for line in (*report.faults, *report.missed):
        print(f"FAULT {line}")
    print(f"goals: 0 through, 0 refused, health within {MAX_HEALTH_MS:.0f} ms, memory within {MAX_MEMORY_MB:.0f} MB over idle")
    return 1 if report.through or report.faults or report.missed else 0


def _show(row: Row) -> None:
    print(row, *(f"THROUGH {row.kind}: {line}" for line in row.through), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
