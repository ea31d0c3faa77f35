"""`aligner top`: a frame shows the numbers that the server counted, on 80 columns, from the server's own metrics."""

from __future__ import annotations

import asyncio
import io
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import typer
from prometheus_client import generate_latest
from rich.console import Console
from typer.testing import CliRunner

from aligner_svc.cli.top import command
from aligner_svc.cli.top import view as top_view
from aligner_svc.cli.top.scrape import Interval, ScrapeError, fetch, parse
from aligner_svc.engines.batch_report import BatchReport, QueueState
from aligner_svc.telemetry.metrics import Metrics, Sources
from interceptors.calls.call import Call, StageTiming, enter_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, SecurityEvent

NOW = 1_800_000_000.0
ALIGN = "/aligner.v1.Aligner/Align"
CONTEXT = SimpleNamespace(code=lambda: None, done=lambda: False, time_remaining=lambda: None)
METHODS = {ALIGN: "unary", "/aligner.v1.Aligner/StreamAlign": "bidi_stream", "/grpc.health.v1.Health/Check": "unary"}
app = typer.Typer()
app.command()(command.top)


class Server:
    """The metrics of a server, as its endpoint would return them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.metrics = Metrics(METHODS, quota_class=lambda _: "standard")
        self.metrics.rpc.clock = lambda: self.now
        self.state = QueueState(3, 300, 0.25, 1, 2, 4, 0.1, 1000, None)
        self.redis = SimpleNamespace(degraded=False, losses=0)
        self.scanner = SimpleNamespace(
            healthy=True, signatures_age=7200.0, connections=1, counts={"clean": 5}, scan_seconds=0.5, cached=0, cache_hits=0
        )
        self.keys = SimpleNamespace(age_seconds=120.0, trouble="", last_error="")
        self.pool = SimpleNamespace(name="decode", pids=[1, 2], wanted=2, waiting=0, restarts=1)
        self.expires = NOW + 40 * 86_400
        counts = SimpleNamespace(on_the_way=1, waiting=2, at_work=3, long=0)
        self.metrics.watch(
            Sources(
                build={"version": "1.2.3", "engine": "pocketsphinx"},
                not_serving=lambda: None,
                engine=lambda: self.state,
                engine_slots=2,
                engine_queue=64,
                pools=[self.pool],
                overload=SimpleNamespace(
                    counts=counts, memory=SimpleNamespace(used=0, waiting=0), limit=12.0, refused={"SERVER_OVERLOADED": 0}
                ),
                quota_store=self.redis,
                key_sources={"https://idp.example.org": self.keys},
                certificate_expires=lambda: self.expires,
                antivirus=lambda: self.scanner,
                dropped={"audit": lambda: 0, "log": lambda: 7},
            )
        )

    def call(self, times: int, error: CallRefusedError | None = None, *, seconds: float | None = 0.07) -> None:
        """Serve calls that take `seconds` and succeed or raise `error`; None: that do not end."""
        stages = [StageTiming("decode", {"audio_seconds": 4.0}, seconds=0.008), StageTiming("align", seconds=0.06)]
        call = Call(ALIGN, "", stages=[] if error else stages)
        call.meter = SimpleNamespace()

        async def serve() -> None:
            enter_call(call)
            for _ in range(times):
                counted = self.metrics.rpc.around(ALIGN, CONTEXT)
                counted.__enter__()
                if seconds is not None:
                    self.now += seconds
                    counted.__exit__(type(error) if error else None, error, None)

        asyncio.run(serve())

    def text(self) -> str:
        self.metrics.refresh()
        return generate_latest(self.metrics.registry).decode()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def interval(server) -> Interval:
    """10 s in which every kind of thing happened."""
    server.call(50)
    before = server.text()
    server.call(200)
    server.call(20, CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_UNREADABLE", ""))
    server.call(30, CallRefusedError(grpc.StatusCode.UNAVAILABLE, "SERVER_OVERLOADED", ""))
    server.call(4, seconds=None)
    server.metrics.calls.event(SecurityEvent(Event.AUTHENTICATION_FAILED, "signature"))
    for _ in range(10):
        server.metrics.engine.batch(BatchReport(4, 100, 125, 1.2, 0.01, failed=False))
    return Interval.between(parse(before, 100.0), parse(server.text(), 110.0))


def drawn(interval: Interval, width: int = 80, **named) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(top_view.frame(interval, source="http://127.0.0.1:9464/metrics", wall=NOW, **named))
    return console.file.getvalue()


def test_a_frame_shows_what_was_counted(interval) -> None:
    text = drawn(interval)
    assert re.search(r"^aligner 1\.2\.3 pocketsphinx  SERVING", text, re.MULTILINE)
    # 250 calls in 10 s, 4 open, a p50 in the bucket from 50 to 75 ms, and 30 of 250 failed because of the server.
    (align,) = [line.split() for line in text.splitlines() if line.startswith("Align")]
    assert (align[1], align[2], align[-1]) == ("25.0", "4", "12.0%")
    assert 50 <= float(align[3]) <= 75
    assert "OK 20.0/s  Unavailable 3.0/s  InvalidArgument 2.0/s" in text
    for expected in (
        "queue       3 of 64, oldest 250 ms",
        "slots       1 of 2, busy 60%",
        "batch       4.0 items, padding 20%",
        "audio       80.0 s each second",
        "at work     3 of 12",
        "pending     1 uploading, 2 waiting",
        "Redis       up",
        "clamd       up, signatures 2 h old",
        "certificate expires in 40 d",
        "dropped     7 log",
        "logins      0.1/s signature",
        "failures    3.0/s server overloaded",
        "2.0/s audio unreadable",
    ):
        assert expected in text
    assert re.search(r"RTF\s+p50 0\.01\d", text)


@pytest.mark.parametrize("width", [50, 80, 100, 160])
def test_a_frame_fits_the_terminal(interval, width) -> None:
    lines = drawn(interval, width).splitlines()
    assert max(len(line.rstrip("\n")) for line in lines) <= width
    assert len(lines) <= (40 if width >= 80 else 60)
    assert any("3 of 64, oldest 250 ms" in line for line in lines)


def test_every_metric_shown_exists_on_the_server(interval) -> None:
    """A metric renamed there and not here would silently disappear from the screen."""
    names = set(re.findall(r'"((?:aligner|grpc_server|process)_[a-z_]+)"', Path(top_view.__file__).read_text()))
    assert len(names) > 25
    has = {re.sub(r"_(bucket|count|sum)$", "", name) for name in interval.after.samples}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in names} - has == set()


def test_problems_are_shown(server) -> None:
    server.state = QueueState(64, 300, 30.0, 0, 2, 4, 0.1, 1000, "CUDA error")
    server.redis.degraded = True
    server.scanner.healthy = False
    server.keys.trouble, server.keys.last_error = "keys_stale", "timeout"
    server.pool.pids = [1]
    server.expires = NOW - 7200
    text = drawn(Interval.between(None, parse(server.text(), 1.0)), trouble="connection refused; last seen 12 s ago")
    for expected in (
        "stale: connection refused; last seen 12 s ago",
        "device      out of service",
        "queue       64 of 64",
        "Redis       unavailable",
        "clamd       unavailable",
        "JWKS        none, fetching fails",
        "decode up   1 of 2, 1 replaced",
        "certificate expired 2 h ago",
    ):
        assert expected in text


def test_metrics_that_the_server_lacks_are_left_out() -> None:
    text = drawn(Interval.between(None, parse("up 1\n", 0.0)))
    assert "the server counts no calls" in text
    assert "Redis" not in text
    assert "nan" not in text.lower()


def test_label_values_cannot_control_the_terminal(server) -> None:
    text = server.text().replace('version="1.2.3"', 'version="\x1b[2J1"').replace('pool="decode"', 'pool="[red]de\x07"')
    shown = drawn(Interval.between(None, parse(text, 0.0)))
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_quantiles_equal_those_of_prometheus() -> None:
    text = "\n".join(f'h_bucket{{le="{le}"}} {count}' for le, count in (("0.1", 10), ("0.2", 30), ("0.4", 40), ("+Inf", 50)))
    interval = Interval.between(parse(re.sub(r"\d+$", "0", text, flags=re.MULTILINE), 0.0), parse(text, 1.0))
    assert interval.quantile("h", 0.5) == pytest.approx(0.175)
    assert interval.quantile("h", 0.1) == pytest.approx(0.05)
    assert math.isinf(interval.quantile("h", 0.9))
    assert interval.quantile("nothing", 0.5) is None


def test_a_restarted_server_has_no_rates_from_before(server) -> None:
    server.call(10)
    before = re.sub(r"(?m)^process_start_time_seconds .*", "process_start_time_seconds 1.0", server.text())
    interval = Interval.between(parse(before, 0.0), parse(Server().text(), 5.0))
    assert interval.before is None
    assert interval.rate("grpc_server_handled_total") is None


@pytest.mark.parametrize("text", ["", "<html>no</html>", "a{b=} x"])
def test_an_answer_without_metrics_is_an_error(text) -> None:
    with pytest.raises(ScrapeError):
        parse(text, 0.0)


@contextmanager
def endpoint(texts: list[str]) -> Iterator[str]:
    """Serve each text in turn and then the last one again; an empty text is an error 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.pop(0) if len(texts) > 1 else texts[0]
            self.send_response(200 if text else 503)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/metrics"
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def test_one_frame_is_printed_for_a_pipe(server) -> None:
    server.call(10)
    first = server.text()
    server.call(10)
    with endpoint([first, server.text()]) as url:
        result = CliRunner().invoke(app, ["--once", "--interval", "0.1", "--metrics-url", url])
    assert result.exit_code == 0, result.output
    assert result.output.count("aligner 1.2.3") == 1
    assert re.search(r"^Align +\d+", result.output, re.MULTILINE)
    assert "\x1b" not in result.output


def test_an_unavailable_server_is_reported() -> None:
    result = CliRunner().invoke(app, ["--once", "--metrics-url", "http://127.0.0.1:1/metrics"])
    assert result.exit_code == 69
    assert "no metrics from http://127.0.0.1:1/metrics" in result.output
    assert "connection refused" in result.output
    result = CliRunner().invoke(app, ["--once", "--metrics-url", "http://user:hunter2@127.0.0.1:1/metrics"])
    assert result.exit_code == 69
    assert "with a user or a password" in result.output
    assert "hunter2" not in result.output


def test_only_http_urls_are_opened(tmp_path) -> None:
    (tmp_path / "x").write_text("up 1\n")
    with pytest.raises(ScrapeError, match="http or https"):
        fetch(f"file://{tmp_path}/x", 1.0)
    with endpoint([""]) as url, pytest.raises(ScrapeError, match="503"):
        fetch(url, 5.0)


def test_watching_continues_while_the_server_is_unavailable(server, monkeypatch) -> None:
    """The third scrape fails; after the fourth the user interrupts."""
    scrapes = 0

    def pause(_: float) -> None:
        nonlocal scrapes
        scrapes += 1
        if scrapes == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    server.call(10)
    texts = [server.text(), server.text(), "", server.text()]
    with endpoint(texts) as url:
        result = CliRunner().invoke(app, ["--metrics-url", url])
    assert result.exit_code == 0, result.output
