"""`python -m tools.panels record | draw | --check`.

record  three minutes of load on a server of its own, and what Prometheus answers: deploy/grafana/recorded.json; then draw
draw    docs/dashboard/*.svg, from that file and the dashboard alone
--check writes nothing; exit 1 where a picture is not what `draw` makes, or a panel is not in the recording
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tools.panels import board, recorded
from tools.panels.pictures import pictures, stale

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "aligner.json"
RECORDED = ROOT / "deploy" / "grafana" / "recorded.json"
PICTURES = ROOT / "docs" / "dashboard"


def main(arguments: list[str] | None = None) -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.panels", description="Pictures of the dashboard, from a recorded run.")
    parser.add_argument("do", nargs="?", choices=("record", "draw"), default="draw")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is not what it would be")
    parser.add_argument("--minutes", type=float, default=None, help="of the run, for a trial; default: 3")
    given = parser.parse_args(arguments)
    rows = board.read(DASHBOARD)
    if given.do == "record" and not given.check:
        from tools.panels.record import record  # noqa: PLC0415 - drawing needs no more than the standard library

        recording = asyncio.run(record(rows, given.minutes))
        RECORDED.write_text(recorded.write(recording), encoding="utf-8")
    recording = recorded.read(RECORDED)
    if wrong := recorded.differences(rows, recording):
        return _told(wrong, "record anew: python -m tools.panels record")
    if given.check:
        return _told(stale(rows, recording, PICTURES), "draw anew: python -m tools.panels draw")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    for name, svg in pictures(rows, recording).items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
    return 0


def _told(wrong: list[str], what_to_do: str) -> int:
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        print(what_to_do, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
