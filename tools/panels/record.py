"""A run: the service, a load, and what Prometheus has to answer to every query of the dashboard afterwards."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import accumulate
from typing import Any

import aligner_svc
from tools.panels.board import Row
from tools.panels.load import PHASES, Phase, drive, shortened
from tools.panels.recorded import Recording, Run, Series, asked, rounded, write
from tools.panels.scene import JOB, SCRAPE, PrometheusServer, Scene, running

STEP = 3
"""Seconds between the points of a series. Grafana's data source, told that this is the scrape interval, asks for no more."""
RATE_INTERVAL = max(STEP + STEP, 4 * STEP)
"""What Grafana makes of $__rate_interval then. With four scrapes in it, the few calls of one machine would be all teeth."""
LARGEST = 150_000
_WARM_UP = 20.0
"""Seconds that the service is scraped before the run: rates need a window that is full."""


async def record(rows: Sequence[Row], minutes: float | None = None) -> Recording:
    """Takes as long as the run and half a minute. Raises SystemExit where something it needs is not here."""
    phases = PHASES if minutes is None else shortened(PHASES, minutes)
    async with running() as scene:
        await asyncio.sleep(_WARM_UP)
        began = time.time()
        ended = await drive(scene, phases)
        print("calls:", ", ".join(f"{count} {code}" for code, count in ended.most_common()))
        await asyncio.sleep(2 * SCRAPE)
        seconds = sum(phase.seconds for phase in phases)
        recording = await asyncio.to_thread(_ask, scene.prometheus, rows, began, _run(scene, phases, seconds))
    if len(write(recording).encode()) > LARGEST:
        raise SystemExit(f"the recording has {len(write(recording).encode())} bytes; {LARGEST} are the most")
    return recording


def filled(promql: str) -> str:
    """With the dashboard's variables as Grafana puts them in, all instances chosen."""
    return promql.replace("$__rate_interval", f"{RATE_INTERVAL}s").replace("$job", JOB).replace("$instance", ".*")


def _ask(prometheus: PrometheusServer, rows: Sequence[Row], began: float, run: Run) -> Recording:
    found: dict[str, dict[str, dict[str, list[Series]]]] = {}
    for row, panel, expr in asked(rows):
        answer = prometheus.query_range(filled(expr), began, began + run.step * (run.points - 1), run.step)
        series = [series_of(one, began, run) for one in answer]
        found.setdefault(row, {}).setdefault(panel, {})[expr] = [one for one in series if any(v is not None for v in one.values)]
    return Recording(run, found)


def series_of(answer: dict[str, Any], began: float, run: Run) -> Series:
    """Prometheus leaves out the points where there is nothing: they are the gaps."""
    values: list[float | None] = [None] * run.points
    for at, value in answer["values"]:
        values[round((at - began) / run.step)] = float(value)
    labels = {name: value for name, value in sorted(answer["metric"].items()) if name not in {"__name__", "job"}}
    return Series(labels, rounded(values))


def _run(scene: Scene, phases: Sequence[Phase], seconds: float) -> Run:
    starts = [round(at, 1) for at in accumulate((phase.seconds for phase in phases), initial=0.0)]
    beside = [*(["ClamAV"] if scene.clamd else []), *(["Redis"] if scene.redis else [])]
    return Run(
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        version=aligner_svc.__version__,
        engine=f"pocketsphinx {version('pocketsphinx')}",
        machine=f"{os.cpu_count()} cores of {platform.machine()}, no GPU, shared with the callers",
        beside=beside,
        step=STEP,
        rate_interval=RATE_INTERVAL,
        points=int(seconds / STEP) + 1,
        phases=tuple(zip(starts, (phase.what for phase in phases), strict=False)),
    )
