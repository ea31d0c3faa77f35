"""Writes the dashboard deploy/grafana/aligner.json. `--check`: fail if the file is not what would be written."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "aligner.json"
HERE = 'job="$job", instance=~"$instance"'
ALIGNER = f'{HERE}, grpc_service="aligner.v1.Aligner"'
RATE = "$__rate_interval"
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 7


@dataclass(frozen=True)
class Panel:
    """One graph: `queries` are (PromQL, legend), `unit` a Grafana unit."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    stacked: bool = False
    upper: float | None = None
    exemplars: bool = False


def rate(metric: str, by: str, labels: str = HERE) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))"


def quantile(share: float, metric: str, by: str = "", labels: str = HERE) -> str:
    return f"histogram_quantile({share}, sum by (le{by and ', ' + by}) (rate({metric}_bucket{{{labels}}}[{RATE}])))"


def quantiles(metric: str, labels: str = HERE) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(share, metric, labels=labels), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")))


def mean(histogram: str) -> tuple[tuple[str, str], ...]:
    return ((f"{rate(histogram + '_sum', 'instance')} / {rate(histogram + '_count', 'instance')}", "{{instance}}"),)


def state(metric: str, labels: str = HERE) -> str:
    return f"{metric}{{{labels}}}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Golden signals": (
        Panel("Calls", "reqps", ((rate("grpc_server_started_total", "grpc_method", ALIGNER), "{{grpc_method}}"),), stacked=True),
        Panel(
            "Calls by status",
            "reqps",
            ((rate("grpc_server_handled_total", "grpc_code", ALIGNER), "{{grpc_code}}"),),
            "As clients saw it. Canceled is caused by the client, Unavailable by the service.",
            stacked=True,
        ),
        Panel(
            "Duration of Align",
            "s",
            quantiles("grpc_server_handling_seconds", f'{ALIGNER}, grpc_method="Align"'),
            "From headers to status, refused calls included. The dots are traces.",
            exemplars=True,
        ),
        Panel(
            "Share of calls that the service failed",
            "percentunit",
            (
                ('aligner:calls_failed:ratio_rate5m{job="$job"}', "5 min"),
                ('aligner:calls_failed:ratio_rate1h{job="$job"}', "1 h"),
            ),
            "The objective is 0.001 over 30 days.",
        ),
        Panel(
            "Share of Align calls over 2.5 s",
            "percentunit",
            (('aligner:align_slow:ratio_rate5m{job="$job"}', "5 min"), ('aligner:align_slow:ratio_rate1h{job="$job"}', "1 h")),
            "The objective is 0.05 over 30 days.",
        ),
        Panel(
            "Failed calls by reason",
            "reqps",
            ((rate("aligner_failures_total", "reason"), "{{reason}}"),),
            "docs/errors.md has every reason.",
            stacked=True,
        ),
        Panel(
            "Messages",
            "ops",
            (
                (rate("grpc_server_msg_received_total", "grpc_method", ALIGNER), "{{grpc_method}} received"),
                (rate("grpc_server_msg_sent_total", "grpc_method", ALIGNER), "{{grpc_method}} sent"),
            ),
        ),
        Panel("Deadlines missed", "reqps", ((rate("aligner_deadlines_missed_total", "where"), "{{where}}"),), stacked=True),
        Panel(
            "Saturation",
            "percentunit",
            (
                (f"max(aligner:engine_busy:ratio_rate5m{{{HERE}}})", "engine busy"),
                (f"max(aligner:engine_queue:ratio{{{HERE}}})", "engine queue"),
                (f'max(aligner_calls{{{HERE}, where="at_work"}} / on (job, instance) aligner_calls_limit{{{HERE}}})', "calls"),
            ),
            "The busiest replica.",
            upper=1,
        ),
    ),
    "Engine": (
        Panel(
            "Audio received, seconds a second",
            "none",
            ((f"sum(rate(aligner_audio_seconds_sum{{{HERE}}}[{RATE}]))", "audio"),),
            "As many people as speak at the same time.",
        ),
        Panel(
            "Real-time factor",
            "none",
            quantiles("aligner_real_time_factor"),
            "Seconds of decoding and aligning for a second of audio.",
            exemplars=True,
        ),
        Panel(
            "p95 by stage",
            "s",
            ((quantile(0.95, "aligner_stage_seconds", "stage"), "{{stage}}"),),
            "Where a slow call spends its time.",
        ),
        Panel(
            "Queue",
            "short",
            ((state("aligner_engine_queue_length"), "{{instance}}"), (state("aligner_engine_queue_limit"), "{{instance}} limit")),
        ),
        Panel("Wait of the oldest item", "s", ((state("aligner_engine_queue_oldest_seconds"), "{{instance}}"),)),
        Panel("Wait before a batch", "s", quantiles("aligner_batch_wait_seconds")),
        Panel("Engine busy", "percentunit", ((f"aligner:engine_busy:ratio_rate5m{{{HERE}}}", "{{instance}}"),), upper=1),
        Panel("Items of a batch, mean", "short", mean("aligner_batch_items")),
        Panel("Padding, mean share", "percentunit", mean("aligner_batch_padding_ratio")),
        Panel("Engine in service", "short", ((state("aligner_engine_up"), "{{instance}}"),), upper=1),
        Panel("Batches that failed", "ops", ((rate("aligner_batches_failed_total", "instance"), "{{instance}}"),)),
        Panel(
            "Worker processes",
            "short",
            (
                (state("aligner_workers"), "{{instance}} {{pool}}"),
                (f"increase(aligner_worker_restarts_total{{{HERE}}}[{RATE}])", "{{instance}} {{pool}} replaced"),
                (state("aligner_worker_calls_waiting"), "{{instance}} {{pool}} calls waiting"),
            ),
        ),
    ),
    "Guards": (
        Panel("Credentials not accepted", "reqps", ((rate("aligner_auth_failures_total", "check"), "{{check}}"),), stacked=True),
        Panel("Security events", "ops", ((rate("aligner_security_events_total", "event"), "{{event}}"),), stacked=True),
        Panel("Blocks of addresses", "ops", ((rate("aligner_blocks_total", "check"), "{{check}}"),), stacked=True),
        Panel("Refused for overload", "reqps", ((rate("aligner_overload_refused_total", "reason"), "{{reason}}"),), stacked=True),
        Panel(
            "Calls in the server",
            "short",
            ((f"sum by (where) (aligner_calls{{{HERE}}})", "{{where}}"), (f"sum(aligner_calls_limit{{{HERE}}})", "limit")),
        ),
        Panel("Scans by outcome", "ops", ((rate("aligner_antivirus_scans_total", "outcome"), "{{outcome}}"),), stacked=True),
        Panel(
            "Dependencies of the guards",
            "short",
            (
                (state("aligner_quota_store_up"), "{{instance}} quota store"),
                (state("aligner_antivirus_up"), "{{instance}} virus scanner"),
                (state("aligner_jwks_up"), "{{instance}} keys of {{issuer}}"),
            ),
            "1: available, 0: unavailable.",
            upper=1,
        ),
        Panel(
            "Ages",
            "s",
            (
                (state("aligner_jwks_age_seconds"), "{{instance}} keys of {{issuer}}"),
                (state("aligner_antivirus_signature_age_seconds"), "{{instance}} signatures"),
            ),
        ),
        Panel(
            "Certificate, time left",
            "s",
            ((f"{state('aligner_certificate_expiry_timestamp_seconds')} - time()", "{{instance}}"),),
        ),
        Panel(
            "Cache hits, share",
            "percentunit",
            (
                (
                    f"{rate('aligner_cache_hits_total', 'cache')} / ({rate('aligner_cache_hits_total', 'cache')}"
                    f" + {rate('aligner_cache_misses_total', 'cache')})",
                    "{{cache}}",
                ),
            ),
            "A miss costs: for tokens a signature check, for keys a database query, for verdicts a scan.",
            upper=1,
        ),
    ),
    "Quotas": (
        Panel(
            "Granted, by class",
            "reqps",
            ((rate("aligner_quota_decisions_total", "quota_class", f'{HERE}, decision="granted"'), "{{quota_class}}"),),
            stacked=True,
        ),
        Panel(
            "Refused, by class and quota",
            "reqps",
            (
                (
                    rate("aligner_quota_decisions_total", "quota_class, dimension", f'{HERE}, decision="refused"'),
                    "{{quota_class}} {{dimension}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Losses of the shared store",
            "short",
            ((f"increase(aligner_quota_store_losses_total{{{HERE}}}[{RATE}])", "{{instance}}"),),
        ),
    ),
    "Process": (
        Panel("Event loop lag", "s", quantiles("aligner_event_loop_lag_seconds")),
        Panel(
            "CPU of the server's own process",
            "short",
            ((rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
            "Cores.",
        ),
        Panel("Memory of the server's own process", "bytes", ((state("process_resident_memory_bytes"), "{{instance}}"),)),
        Panel(
            "Open files", "short", ((state("process_open_fds"), "{{instance}}"), (state("process_max_fds"), "{{instance}} limit"))
        ),
        Panel("Lost audit lines, spans, log lines", "ops", ((rate("aligner_telemetry_dropped_total", "kind"), "{{kind}}"),)),
        Panel(
            "Versions",
            "short",
            ((f"sum by (version, engine) (aligner_build_info{{{HERE}}})", "{{version}} {{engine}}"),),
            stacked=True,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in ROWS.items():
        panels.append({"type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": _grid(0, y, _COLUMNS, 1)})
        y += 1
        for place, panel in enumerate(members):
            line, column = divmod(place, _COLUMNS // _WIDTH)
            panels.append(_panel(panel, _grid(column * _WIDTH, y + line * _HEIGHT, _WIDTH, _HEIGHT)))
        y += -(-len(members) // (_COLUMNS // _WIDTH)) * _HEIGHT
    return {
        "uid": "aligner-svc",
        "title": "aligner-svc",
        "tags": ["aligner", "grpc"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                _variable("job", "label_values(grpc_server_started_total, job)", several=False),
                _variable("instance", 'label_values(grpc_server_started_total{job="$job"}, instance)', several=True),
            ]
        },
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _panel(panel: Panel, grid: dict[str, int]) -> dict[str, Any]:
    custom = {"fillOpacity": 20 if panel.stacked else 0, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    bounds = {"min": 0} if panel.upper is None else {"min": 0, "max": panel.upper}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": grid,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom, **bounds}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expr, "legendFormat": legend, "exemplar": panel.exemplars}
            for place, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str, *, several: bool) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    found = {"name": name, "type": "query", "datasource": source, "query": query, "definition": query, "refresh": 2, "sort": 1}
    return found | ({"multi": True, "includeAll": True, "allValue": ".*"} if several else {})


def _grid(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is out of date")
    text = json.dumps(dashboard(), indent=1) + "\n"
    if parser.parse_args().check:
        if DASHBOARD.is_file() and DASHBOARD.read_text(encoding="utf-8") == text:
            return 0
        print(f"{DASHBOARD} is out of date: run tools/dashboard.py", file=sys.stderr)
        return 1
    DASHBOARD.parent.mkdir(parents=True, exist_ok=True)
    DASHBOARD.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
