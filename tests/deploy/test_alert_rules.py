"""Dashboard, rules and alerts ask for what the server really exposes; every alert is tested, and tells what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
import yaml

from aligner_svc.engines.batch_report import BatchReport, QueueState
from aligner_svc.telemetry.metrics import CacheCounts, Metrics, Sources
from aligner_svc.telemetry.metrics.merged import MergedPages, page_of
from aligner_svc.telemetry.metrics.server import MetricsServer
from aligner_svc.workers.children import PlaceState
from interceptors.antivirus.scanner import ScannerState
from interceptors.calls.call import Call, StageTiming, enter_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, SecurityEvent
from interceptors.overload.admission import Counts
from tests import PROJECT
from tests.kit.prometheus_server import promtool, scraping
from tools.dashboard import DASHBOARD, dashboard

ROOT = PROJECT
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
TESTS = sorted((ROOT / "deploy" / "prometheus" / "tests").glob("*.yaml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
EXPLAINED = ROOT / "docs" / "dashboard.md"
REFERENCE = ROOT / "docs" / "metrics.md"
ALIGN = "/aligner.v1.Aligner/Align"
CONTEXT = SimpleNamespace(code=lambda: None, done=lambda: False, time_remaining=lambda: None)
OF_PROMETHEUS = {"up"}


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m").replace("$job", "aligner").replace("$instance", ".*")
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel.get("targets", ())
]


async def full() -> Metrics:
    """With every series there can be: a source for everything, and one of everything that is counted."""
    metrics = Metrics({ALIGN: "unary"}, quota_class=lambda call: "default")
    metrics.rpc.clock = itertools.count(0.0, 0.07).__next__
    keys = SimpleNamespace(age_seconds=60.0, trouble="", last_error="")
    metrics.watch(
        Sources(
            build={"version": "0.1.0", "engine": "pocketsphinx-5.1.1"},
            not_serving=lambda: None,
            connections=SimpleNamespace(open=1, closed=Counter(flood=1)),
            http=lambda: SimpleNamespace(open=1, closed=Counter(), responses=Counter({200: 1}), refused=Counter(malformed=1)),
            exempt=SimpleNamespace(reading=0, streaming=1, refused=Counter(STREAMS_EXCEEDED=1)),
            engine=lambda: QueueState(1, 2, 0.5, 1, 1, 1, 0.0, 1, None),
            engine_slots=2,
            engine_queue=64,
            pools=[
                SimpleNamespace(
                    name="decode",
                    pids=[1, 2],
                    wanted=2,
                    waiting=0,
                    restarts=0,
                    places=lambda: {"cuda:0": PlaceState(1, 1, 0, 0.5)},
                )
            ],
            overload=SimpleNamespace(
                counts=Counts(on_the_way=0, waiting=0, at_work=1, long=0),
                memory=SimpleNamespace(used=0, waiting=0),
                limit=8.0,
                refused=Counter(SERVER_OVERLOADED=1),
            ),
            quota_store=SimpleNamespace(degraded=False, losses=0),
            key_sources={"https://issuer.example": keys},
            certificate_expires=lambda: time.time() + 90 * 86_400,
            antivirus=lambda: ScannerState(True, "", "ClamAV", 1, 3600.0, 0, 0, 1, Counter(clean=1), 0.1),
            caches={"tokens": lambda: CacheCounts(9, 1, 1)},
            dropped={"audit": lambda: 0, "trace": lambda: 0, "log": lambda: 0},
        )
    )
    await work(metrics)
    return metrics


async def work(metrics: Metrics) -> None:
    """One more of everything that is counted."""
    call = Call(
        ALIGN,
        "ipv4:192.0.2.1:1",
        stages=[StageTiming("decode", seconds=0.01), StageTiming("align", {"audio_seconds": 4.4}, seconds=0.06)],
    )
    call.meter = SimpleNamespace()
    spent = CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "spent")
    enter_call(call)
    with metrics.rpc.around(ALIGN, CONTEXT):
        pass
    with contextlib.suppress(CallRefusedError), metrics.rpc.around(ALIGN, CONTEXT):
        raise spent
    metrics.calls.event(SecurityEvent(Event.AUTHENTICATION_FAILED, check="signature"))
    metrics.calls.event(SecurityEvent(Event.PEER_BLOCKED, check="too_many_calls"))
    metrics.engine.batch(BatchReport(1, 1, 1, 0.05, 0.0, failed=False))


def exposed(metrics: Metrics) -> dict[str, set[str]]:
    """Every name that a query may use, with its labels: of a server of several processes, which has some more."""
    metrics.refresh()
    merged = MergedPages(partial(asyncio.sleep, 0), lambda: (1, 1, 0))
    merged.take(0, page_of(metrics.registry))
    found: dict[str, set[str]] = {}
    for family in merged.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


NAMES = exposed(asyncio.run(full()))

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][a-zA-Z0-9_:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "by", "on", "bool", "offset", "inf", "nan"}


def metric_names(promql: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", _GROUPING.sub("", _STRING.sub("", promql)))
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def selected_labels(promql: str) -> Iterator[tuple[str, set[str]]]:
    for name, inside in _SELECTED.findall(_STRING.sub("", promql)):
        yield name, {part.strip(" =~!") for part in inside.split(",") if part.strip()}


def expressions() -> list[str]:
    return [*QUERIES, *(rule["expr"] for rule in rules())]


def test_names_are_found_in_promql() -> None:
    promql = 'sum by (job) (rate(a_total{x="b{c}"}[5m])) / on (d) (e:f > 0) - time() or g'
    assert metric_names(promql) == {"a_total", "e:f", "g"}


@pytest.mark.parametrize("promql", expressions())
def test_a_query_asks_for_what_there_is(promql) -> None:
    assert metric_names(promql) - NAMES.keys() - RECORDED - OF_PROMETHEUS == set()
    for name, labels in selected_labels(promql):
        assert labels <= NAMES.get(name, set()) | {"job", "instance"}, name


def test_prometheus_takes_the_rules() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_no_others_do(file) -> None:
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_and_tells_what_to_do(alert) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert f'alertname="{alert}"' in "".join(file.read_text() for file in TESTS)
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / path == RUNBOOK
    entry = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
    entries = {title.lower(): body for title, body in entry.findall(RUNBOOK.read_text())}
    assert anchor == alert.lower()
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in entries[anchor]


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == set(ALERTS)


def test_the_page_about_the_dashboard_names_its_rows_and_panels_and_entries_of_the_runbook() -> None:
    page = " ".join(EXPLAINED.read_text().split())
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    panels = {panel["title"] for panel in dashboard()["panels"]}
    assert [title for title in re.findall(r"^## (.+)$", EXPLAINED.read_text(), re.MULTILINE) if title in panels] == rows
    assert set(re.findall(r"\*([^*]+)\*", page)) <= panels
    assert set(re.findall(r"runbook\.md#(\w+)", page)) <= {alert.lower() for alert in ALERTS}


def test_queries_in_the_runbook_ask_for_what_there_is() -> None:
    queries = re.findall(r"```promql\n(.*?)```", RUNBOOK.read_text(), re.DOTALL)
    assert queries
    for promql in "\n".join(queries).splitlines():
        assert metric_names(promql) - NAMES.keys() - RECORDED - OF_PROMETHEUS == set(), promql


def test_the_reference_has_every_metric_and_no_other() -> None:
    families = {name for name in NAMES if not name.startswith(("process_", "python_"))}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) if _histogram(name) else name for name in families}
    assert set(re.findall(r"^\| `((?:aligner|grpc_server)_\w+)`", REFERENCE.read_text(), re.MULTILINE)) == bases
    assert set(re.findall(r"^\| `(aligner:[\w:]+)`", REFERENCE.read_text(), re.MULTILINE)) == {
        re.sub(r"rate\d+[mhd]$", "rateW", name) for name in RECORDED
    }


def _histogram(name: str) -> bool:
    return re.sub(r"_(bucket|sum|count)$", "_bucket", name) in NAMES


def test_the_dashboard_is_what_its_source_says() -> None:
    assert json.loads(DASHBOARD.read_text()) == dashboard()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


@asynccontextmanager
async def endpoint(metrics: Metrics) -> AsyncIterator[str]:
    server = MetricsServer(metrics, "127.0.0.1", 0)
    await server.start()
    await metrics.start()
    try:
        yield server.address
    finally:
        await metrics.close()
        await server.close()


async def test_prometheus_answers_every_query_and_works_through_every_rule() -> None:
    metrics = await full()
    async with endpoint(metrics) as address:
        with scraping(address, RULES) as prometheus:

            def rules_done() -> bool:
                return all(rule["health"] == "ok" for rule in prometheus.rules())

            await asyncio.to_thread(prometheus.scraped)
            await work(metrics)
            await asyncio.to_thread(prometheus.scraped)
            await asyncio.to_thread(prometheus.scraped)
            await asyncio.to_thread(prometheus.until, rules_done, "a rule fails")
            await asyncio.to_thread(
                prometheus.until, lambda: all(prometheus.query(name) for name in RECORDED), "a rule records nothing"
            )
            silent = [promql for promql in QUERIES if not await asyncio.to_thread(prometheus.query, promql)]
            assert silent == []
            assert await asyncio.to_thread(prometheus.query, 'ALERTS{alertstate="firing"}') == []
