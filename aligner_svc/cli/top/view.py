"""One frame of `aligner top`, in two columns of panels, or one below 76 columns. Metrics that the server lacks are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aligner_svc.cli.tables import SideBySide, printable
from aligner_svc.cli.top.scrape import Interval

_GOOD, _WARN, _BAD, _DIM = "green", "yellow", "bold red", "dim"
_MAX_METHODS = 6
_MAX_NAMED = 4
_EXPIRES_SOON = 14 * 86_400.0
"""Seconds left on a certificate below which it is a warning."""
_OLD_SIGNATURES = 3 * 86_400.0
"""Seconds. Age of virus signatures above which it is a warning."""
_STAGES = ("decode", "scan", "queue", "align")
_CLIENT_ERRORS = frozenset({
    *("Canceled", "InvalidArgument", "NotFound", "AlreadyExists"),
    *("Unauthenticated", "PermissionDenied", "FailedPrecondition", "OutOfRange"),
})  # fmt: skip
"""Status codes caused by the client."""


def frame(interval: Interval, *, source: str, wall: float, trouble: str = "") -> RenderableType:
    """Draw a frame. `source`: the URL; `wall`: Unix time; `trouble`: why the numbers are stale, empty if they are not."""
    parts: list[RenderableType] = [_head(interval, source, wall)]
    if trouble:
        parts.append(Text(f"stale: {trouble}", style=_BAD))
    elif interval.before is None:
        parts.append(Text("rates appear with the next update", style=_DIM))
    parts += [_calls(interval), _codes(interval)]
    parts.append(
        SideBySide(
            _panel("engine", _engine(interval)),
            _panel("admission", _admission(interval)),
            _panel("refusals", _refusals(interval)),
            _panel("dependencies", _dependencies(interval, wall)),
        )
    )
    return Group(*parts)


def _head(interval: Interval, source: str, wall: float) -> Text:
    after = interval.after
    build = next((labels for labels, _ in after.values("aligner_build_info")), {})
    head = Text("aligner", style="bold")
    for label in ("version", "engine"):
        if build.get(label):
            head.append(" ").append_text(printable(build[label]))
    ready = after.total("aligner_ready")
    if ready is not None:
        head.append("  ")
        head.append("SERVING" if ready else "NOT SERVING", style=f"bold {_GOOD}" if ready else _BAD)
    started = after.total("process_start_time_seconds")
    if started:
        head.append(f"  up {span(max(0.0, wall - started))}")
    head.append("  ").append_text(printable(source))
    head.truncate(200)
    return head


def _calls(interval: Interval) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("method", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("calls/s", "open", "p50", "p95", "failed"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7)
    started, handled = "grpc_server_started_total", "grpc_server_handled_total"
    totals = interval.after.by(started, "grpc_method")
    rates = interval.rates(handled, "grpc_method")
    ordered = sorted(totals, key=lambda method: (-rates.get(method, 0.0), -totals[method], method))
    for method in [one for one in ordered if totals[one]][:_MAX_METHODS]:
        finished = interval.after.total(handled, grpc_method=method) or 0.0
        rate = interval.rate(handled, grpc_method=method)
        bad = _failed(interval, method)
        seconds = "grpc_server_handling_seconds"
        table.add_row(
            printable(method),
            _rate(rate),
            f"{max(0.0, totals[method] - finished):.0f}",
            *(_duration(interval.quantile(seconds, share, grpc_method=method)) for share in (0.5, 0.95)),
            _share(bad, warn=0.01, bad=0.05),
        )
    if not table.row_count:
        table.add_row(Text("no calls yet" if totals else "the server counts no calls", style=_DIM))
    return table


def _failed(interval: Interval, method: str) -> float | None:
    """The share of calls that the server failed; None without calls."""
    codes = interval.rates("grpc_server_handled_total", "grpc_code", grpc_method=method)
    total = sum(codes.values())
    return sum(rate for code, rate in codes.items() if code != "OK" and code not in _CLIENT_ERRORS) / total if total else None


def _codes(interval: Interval) -> Text:
    line = Text("codes  ", style="bold")
    rates = interval.rates("grpc_server_handled_total", "grpc_code")
    for code, rate in rates.items():
        style = _GOOD if code == "OK" else _WARN if code in _CLIENT_ERRORS else _BAD
        line.append(f"{code} ", style=style).append(f"{_rate(rate)}/s  ", style="not bold")
    if not rates:
        line.append("none", style=_DIM)
    return line


def _engine(interval: Interval) -> list[Text]:
    after = interval.after
    lines: list[Text] = []
    up = after.total("aligner_engine_up")
    if up is not None and not up:
        lines.append(_row("device", "out of service", _BAD))
    waiting, room = after.total("aligner_engine_queue_length"), after.total("aligner_engine_queue_limit")
    if waiting is not None:
        fill = waiting / room if room else 0.0
        style = _BAD if fill >= 0.9 else _WARN if fill >= 0.5 else ""
        oldest = after.total("aligner_engine_queue_oldest_seconds")
        more = f", oldest {_duration(oldest)}" if waiting and oldest is not None else ""
        lines.append(_row("queue", f"{waiting:.0f}{f' of {room:.0f}' if room else ''}{more}", style))
    slots, busy = after.total("aligner_engine_lanes"), interval.rate("aligner_engine_busy_seconds_total")
    if slots:
        running = after.total("aligner_engine_running_batches") or 0.0
        used = f", busy {min(1.0, busy / slots):.0%}" if busy is not None else ""
        lines.append(_row("slots", f"{running:.0f} of {slots:.0f}{used}"))
    items, padding = interval.mean("aligner_batch_items"), interval.mean("aligner_batch_padding_ratio")
    if items is not None:
        lines.append(_row("batch", f"{items:.1f} items" + (f", padding {padding:.0%}" if padding is not None else "")))
    factor = [interval.quantile("aligner_real_time_factor", share) for share in (0.5, 0.95)]
    if factor[0] is not None:
        lines.append(_row("RTF", f"p50 {_number(factor[0])}, p95 {_number(factor[1])}"))
    audio = interval.rate("aligner_audio_seconds_sum")
    if audio is not None:
        lines.append(_row("audio", f"{audio:.1f} s each second"))
    for stage in _STAGES:
        median, slow = (interval.quantile("aligner_stage_seconds", share, stage=stage) for share in (0.5, 0.95))
        if median is not None:
            lines.append(_row(stage, f"p50 {_duration(median)}, p95 {_duration(slow)}"))
    lines += _workers(interval)
    return lines


def _workers(interval: Interval) -> list[Text]:
    lines = []
    wanted = interval.after.by("aligner_workers_wanted", "pool")
    for pool, up in interval.after.by("aligner_workers", "pool").items():
        missing = up < wanted.get(pool, up)
        restarts = interval.after.total("aligner_worker_restarts_total", pool=pool) or 0.0
        text = f"{up:.0f} of {wanted.get(pool, up):.0f}{f', {restarts:.0f} replaced' if restarts else ''}"
        lines.append(_row(f"{pool} up", text, _BAD if missing else ""))
    return lines


def _admission(interval: Interval) -> list[Text]:
    after = interval.after
    lines: list[Text] = []
    where = after.by("aligner_calls", "where")
    limit = after.total("aligner_calls_limit")
    if where:
        full = limit is not None and where.get("at_work", 0.0) >= limit
        at_work = f"{where.get('at_work', 0.0):.0f}{f' of {limit:.0f}' if limit is not None else ''}"
        lines.append(_row("at work", at_work, _WARN if full else ""))
        pending = f"{where.get('on_the_way', 0.0):.0f} uploading, {where.get('waiting', 0.0):.0f} waiting"
        lines.append(_row("pending", pending))
    refused = interval.rates("aligner_overload_refused_total", "reason")
    lines += [_row(_words(reason), f"{_rate(rate)}/s", _BAD) for reason, rate in refused.items()]
    lag = interval.quantile("aligner_event_loop_lag_seconds", 0.95)
    if lag is not None:
        lines.append(_row("loop lag", f"p95 {_duration(lag)}", _BAD if lag > 0.25 else _WARN if lag > 0.05 else ""))
    cpu, memory = interval.rate("process_cpu_seconds_total"), after.total("process_resident_memory_bytes")
    if cpu is not None:
        lines.append(_row("CPU", f"{cpu:.2f} cores"))
    if memory is not None:
        lines.append(_row("memory", f"{memory / (1 << 20):.0f} MiB"))
    files, max_files = after.total("process_open_fds"), after.total("process_max_fds")
    if files is not None and max_files:
        lines.append(_row("files", f"{files:.0f} of {max_files:.0f}", _BAD if files > 0.8 * max_files else ""))
    late = interval.rates("aligner_deadlines_missed_total", "where")
    if late:
        lines.append(_row("late", _list(late), _WARN))
    return lines


def _refusals(interval: Interval) -> list[Text]:
    lines: list[Text] = []
    for quota_class in interval.after.by("aligner_quota_decisions_total", "quota_class"):
        refused = interval.rates("aligner_quota_decisions_total", "dimension", quota_class=quota_class, decision="refused")
        granted = interval.rate("aligner_quota_decisions_total", quota_class=quota_class, decision="granted") or 0.0
        text = f"{_rate(granted)}/s pass" + (f"; {_list(refused)}" if refused else "")
        lines.append(_row(f"class {quota_class}", text, _WARN if refused else ""))
    for name, metric, label in (
        ("logins", "aligner_auth_failures_total", "check"),
        ("blocks", "aligner_blocks_total", "check"),
        ("failures", "aligner_failures_total", "reason"),
    ):
        rates = list(interval.rates(metric, label).items())
        # One line each, so that a name can be found at a glance.
        lines += [
            _row(name if not index else "", f"{_rate(rate)}/s {_words(what)}", _WARN)
            for index, (what, rate) in enumerate(rates[:_MAX_NAMED])
        ]
        if len(rates) > _MAX_NAMED:
            lines.append(_row("", f"and {len(rates) - _MAX_NAMED} more", _DIM))
    return lines or [Text("none counted", style=_DIM)]


def _dependencies(interval: Interval, wall: float) -> list[Text]:
    after = interval.after
    lines: list[Text] = []
    redis = after.total("aligner_quota_store_up")
    if redis is not None:
        lines.append(_row("Redis", "up" if redis else "unavailable: each server counts its share", _GOOD if redis else _BAD))
    scanner, age = after.total("aligner_antivirus_up"), after.total("aligner_antivirus_signature_age_seconds")
    if scanner is not None:
        old = age is not None and age > _OLD_SIGNATURES
        text = "up" if scanner else "unavailable"
        text += f", signatures {span(age)} old" if age is not None else ""
        lines.append(_row("clamd", text, _BAD if not scanner else _WARN if old else _GOOD))
    ages, failing = after.by("aligner_jwks_age_seconds", "issuer"), after.by("aligner_jwks_fetch_failing", "issuer")
    for issuer, up in after.by("aligner_jwks_up", "issuer").items():
        text = "none" if not up else f"{span(ages[issuer])} old" if issuer in ages else "up"
        text += ", fetching fails" if failing.get(issuer) else ""
        style = _BAD if not up else _WARN if failing.get(issuer) else _GOOD
        lines.append(_row("JWKS", f"{text}, {issuer.removeprefix('https://')}", style))
    expires = after.total("aligner_certificate_expiry_timestamp_seconds")
    if expires is not None:
        left = expires - wall
        text = f"expires in {span(left)}" if left > 0 else f"expired {span(-left)} ago"
        lines.append(_row("certificate", text, _BAD if left <= 0 else _WARN if left < _EXPIRES_SOON else _GOOD))
    dropped = {kind: count for kind, count in after.by("aligner_telemetry_dropped_total", "kind").items() if count}
    if dropped:
        lines.append(_row("dropped", ", ".join(f"{count:.0f} {_words(kind)}" for kind, count in dropped.items()), _WARN))
    return lines or [Text("none monitored", style=_DIM)]


def _panel(title: str, lines: list[Text]) -> Panel:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Panel(Group(*lines) if lines else Text("not counted", style=_DIM), title=title, title_align="left", padding=(0, 1))


def _row(name: str, text: str, style: str = "") -> Text:
    row = Text(f"{name:<11} ", style=_DIM)
    shown = printable(text)
    shown.stylize(style or "not dim")
    return row.append_text(shown)


def _list(rates: Mapping[str, float]) -> str:
    named: Iterable[str] = (f"{_words(name)} {_rate(rate)}/s" for name, rate in list(rates.items())[:_MAX_NAMED])
    return ", ".join(named)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.1 or rate == 0 else f"{rate:.2f}"


def _share(share: float | None, *, warn: float, bad: float) -> Text:
    if share is None:
        return Text("-")
    return Text(f"{share:.1%}", style=_BAD if share >= bad else _WARN if share >= warn else "")


def _number(value: float | None) -> str:
    return "-" if value is None else "over" if math.isinf(value) else f"{value:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "over"
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def span(seconds: float) -> str:
    """In the largest unit of which there are at least two: 12 s, 4 min, 3 h, 12 d."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
