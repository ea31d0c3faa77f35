"""Draws the screen of `aligner top` as an SVG: draw_top.py SCRAPE SCRAPE OUT.svg [--seconds N].

The two files are what a server's metrics endpoint answered at two times, N seconds apart:

    curl -s http://127.0.0.1:9464/metrics > 1.txt; sleep 5; curl -s http://127.0.0.1:9464/metrics > 2.txt
    python tools/draw_top.py 1.txt 2.txt docs/top.svg --seconds 5
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from rich.console import Console

from aligner_svc.cli.top.scrape import Interval, parse
from aligner_svc.cli.top.view import frame

COLUMNS = 80


def draw(before: Path, after: Path, seconds: float, wall: float | None = None) -> str:
    """The SVG. `wall`: Unix seconds at the second scrape; None: when its file was written."""
    first = parse(before.read_text(encoding="utf-8"), 0.0)
    second = parse(after.read_text(encoding="utf-8"), seconds)
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    at = after.stat().st_mtime if wall is None else wall
    console.print(frame(Interval.between(first, second), source="http://127.0.0.1:9464/metrics", wall=at))
    return console.export_svg(title="aligner top", unique_id="aligner-top")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw the screen of `aligner top` from two recorded scrapes.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="between the two scrapes")
    parser.add_argument("--wall", type=float, default=None, help="Unix seconds at the second; default: its file's time")
    given = parser.parse_args()
    given.out.write_text(draw(given.before, given.after, given.seconds, given.wall), encoding="utf-8")


if __name__ == "__main__":
    main()
