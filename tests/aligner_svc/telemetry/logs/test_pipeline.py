"""The log: one line for each event, without secrets, and without slowing the server."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.telemetry.logs.pipeline import in_force, open_logs
from aligner_svc.telemetry.logs.rate_limit import LineRate, LogLimit
from aligner_svc.telemetry.logs.redaction import REDACTED, Redactor, conceal
from aligner_svc.telemetry.logs.writer import LogWriter
from interceptors.auth.api_keys import format as api_key
from interceptors.calls.call import Call, enter_call
from interceptors.tracing.call_trace import CallTrace, SpanRef, enter_trace

JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
KEY = api_key.new("alk").reveal()
_BASE64 = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\nhunter2hunter2hunter2\n"
PEM = f"-----BEGIN PRIVATE KEY-----\n{_BASE64}-----END PRIVATE KEY-----"
log = logging.getLogger("test.of.the.log")


@pytest.fixture
def lines():
    """What was written, once the pipeline is closed."""
    stream = io.StringIO()
    logging.root.handlers = []  # pytest's own of this phase, which it removes before the next
    with open_logs("json", "info", stream=stream) as logs:

        def read() -> list[dict]:
            logs.close()
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        yield read


SECRETS = {
    "bearer": (f"authorization: Bearer {JWT}", [JWT, "c2lnbmF0dXJl"]),
    "opaque bearer": ("got header authorization=Bearer s3cr3t-opaque-value", ["s3cr3t"]),
    "metadata": ("(('user-agent', 'x'), ('authorization', 'Bearer s3cr3tvalue'), ('x-api-key', b'other-s3cr3t'))", ["s3cr3t"]),
    "basic": ("Authorization: Basic YWxpY2U6aHVudGVyMg==", ["YWxpY2U6"]),
    "basic alone": ("sent Basic YWxpY2U6aHVudGVyMg==", ["YWxpY2U6"]),
    "jwt alone": (f"cannot parse {JWT!r}", [JWT.split(".", maxsplit=1)[0], JWT.split(".")[2]]),
    "jwt cut": (f"cannot parse {JWT[:60]}", [JWT[:60]]),
    "api key": (f"no such key {KEY}", [KEY, KEY.split("_")[2]]),
    "api key cut": (f"no such key {KEY[:30]}", [KEY[:30], KEY.split("_")[2][:8]]),
    "x-api-key of others": ('{"x-api-key": "hunter2"}', ["hunter2"]),
    "redis": ("cannot connect to redis://:hunter2@cache:6379/0", ["hunter2"]),
    "postgresql": ("postgresql+asyncpg://aligner:p@ss/hunter2@db/keys is away", ["hunter2", "p@ss"]),
    "user alone": ("https://hunter2token@example.org/x", ["hunter2token"]),
    "pem": (f"bad key {PEM}", ["hunter2", "MIGH"]),
    "pem in json": (json.dumps({"key": PEM}), ["hunter2", "MIGH"]),
    "pem without its end": (f"bad key {PEM[:90]}", ["MIGH"]),
    "pem without its beginning": (PEM[PEM.index("MIGH") :], ["hunter2", "MIGH"]),
    "password": ("dsn password=hunter2 host=db", ["hunter2"]),
    "json": ('{"client_secret": "hunter2", "grant_type": "client_credentials"}', ["hunter2"]),
    "form": ("grant_type=client_credentials&client_secret=hunter2&scope=a", ["hunter2"]),
}


@pytest.mark.parametrize(
    "where", ["message", "argument", "field", "nested", "exception", "chained", "structlog", "traceback of another"]
)
@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_is_written_wherever_it_occurs(lines, kind, where) -> None:
    text, secrets = SECRETS[kind]
    match where:
        case "message":
            log.warning(text.replace("%", "%%"))
        case "argument":
            log.warning("it said %s", text)
        case "field":
            log.warning("it said", extra={"detail": text})
        case "nested":
            log.warning("it said", extra={"detail": {"list": [{"deep": text}]}})
        case "exception":
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("it failed")
        case "chained":
            try:
                try:
                    raise KeyError(text)
                except KeyError as error:
                    error.add_note(text)
                    raise RuntimeError("no luck") from error
            except RuntimeError:
                log.exception("it failed")
        case "structlog":
            structlog.get_logger("of.structlog").warning("it said", detail=text)
        case "traceback of another":
            record = logging.makeLogRecord({"name": "x", "levelno": logging.ERROR, "levelname": "ERROR", "msg": "failed"})
            record.exc_text = f"Traceback:\nValueError: {text}"
            logging.root.handle(record)
    written = json.dumps(lines(), ensure_ascii=False)
    assert REDACTED in written
    for secret in secrets:
        assert secret not in written


@pytest.mark.parametrize(
    "text",
    [
        "token: expired",
        "keys of jwt:https://idp.example.org:8443/realm#alice@example.org: got them again",
        "listening on [::1]:50051",
        "http://127.0.0.1:9464/metrics answered 200, mail ops@example.org",
        "a basic recognition of audio",
        "redis://cache:6379/0 is back",
        "the key database was migrated",
        "mtls:spiffe://example.org/batch was let in",
    ],
)
def test_harmless_text_is_not_redacted(text) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "name", ["authorization", "Authorization", "x-api-key", "token", "password", "transcript", "audio", "words"]
)
def test_a_field_with_secrets_or_content_of_callers_is_not_written(lines, name) -> None:
    log.warning("it came", extra={"given": {name: "hunter2"}})
    structlog.get_logger("x").warning("it came", **{name.replace("-", "_"): "hunter2"})
    written = lines()
    assert len(written) == 2
    assert "hunter2" not in json.dumps(written)


def test_bytes_are_replaced_by_their_number(lines) -> None:
    log.warning("it came", extra={"content": b"hunter2"})
    assert lines()[0]["content"] == "[7 bytes]"


def test_a_transcript_quoted_by_an_exception_is_not_written(lines) -> None:
    said = "the quick brown fox jumps over hunter2 while memory runs out"
    conceal(said)
    for error in (
        ValueError(f"cannot align {said!r}"),
        KeyError("hunter2"),
        ValueError("Quick, BROWN; fox"),
        MemoryError("out of memory"),
    ):
        try:
            raise error
        except Exception:
            log.exception("it failed at %s", "brown fox jumps")
    written = lines()
    assert len(written) == 4
    dumped = json.dumps(written).lower()
    for word in ("quick", "brown", "jumps", "hunter2"):
        assert word not in dumped
    assert "out of memory" in written[3]["exception"]  # single words are any words
    assert "MemoryError" in written[3]["exception"]


def test_a_transcript_without_spaces_is_not_written_either(lines) -> None:
    conceal("今天的天气很好我们去公园散步")
    log.error("failed on %s", "天气很好我们")
    assert lines()[0]["event"] == f"failed on {REDACTED}"


def test_an_exception_that_quotes_a_whole_upload_is_cut_in_linear_time(lines) -> None:
    began = time.process_time()
    for _ in range(3):
        try:
            raise ValueError("eyJ" * 2_000_000 + "://:" * 1_000_000 + " -----END PRIVATE KEY-----")
        except ValueError:
            log.exception("it failed")
    written = lines()
    assert len(written) == 3
    assert all(len(json.dumps(line)) < 40_000 for line in written)
    assert all('raise ValueError("eyJ" * 2_000_000' in line["exception"] for line in written)
    assert time.process_time() - began < 30  # quadratic patterns take minutes


def test_the_end_of_a_long_traceback_is_kept(lines) -> None:
    try:
        try:
            raise ValueError("words " * 100_000)
        except ValueError as error:
            raise RuntimeError("it was the disk") from error
    except RuntimeError:
        log.exception("it failed")
    (line,) = lines()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: it was the disk")
    assert "characters left out" in line["exception"]


@pytest.mark.parametrize("before", range(4040, 4100, 3))
def test_a_secret_at_the_cut_of_a_text_is_redacted(lines, before) -> None:
    log.warning("%s", "x" * before + f" {JWT} and {KEY}")
    (line,) = lines()
    assert "eyJ" not in line["event"]
    assert "alk_" not in line["event"]


_NAMES = st.sampled_from(["code", "duration_ms", "stages_ms", "principal", "token", "Transcript", "x-api-key", "peer", "audio"])
_TEXTS = (
    st.sampled_from([*(secret for secret, _ in SECRETS.values()), "ipv4:127.0.0.1:1", "https://issuer#a", "x" * 5000]) | st.text()
)
_FIELDS = st.dictionaries(
    _NAMES,
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), _TEXTS, st.dictionaries(_NAMES | _TEXTS, st.floats(0, 9))),
)


@given(_FIELDS)
def test_a_line_found_harmless_has_no_field_to_redact(fields) -> None:
    redactor = Redactor()
    if redactor.harmless(fields):
        assert {name: redactor.field(name, value) for name, value in fields.items()} == fields


def test_the_line_of_a_call_is_found_harmless() -> None:
    line = {
        "method": "/a.B/C",
        "code": "OK",
        "principal": "jwt:https://issuer.example#a",
        "stages_ms": {"decode": 3.1},
        "left": 1,
    }
    assert Redactor().harmless(line)
    for name, value in (("token", "x"), ("note", JWT), ("stages_ms", {"token": 1.0}), ("peer", "redis://:a@b"), ("x", [1])):
        assert not Redactor().harmless(line | {name: value})


@given(st.text(max_size=300))
def test_any_text_is_one_line_of_json(text) -> None:
    stream = io.StringIO()
    with open_logs("json", stream=stream):
        log.warning("%s", text)
    lines = stream.getvalue().split("\n")
    assert len(lines) == 2
    assert lines[1] == ""
    assert json.loads(lines[0])["level"] == "warning"
    assert lines[0].isascii()


def test_no_line_is_forged_on_a_terminal() -> None:
    stream = io.StringIO()
    with open_logs("console", stream=stream):
        log.warning("agent %s", "x\n2026-01-01 [critical] all is lost\x1b[2J", extra={"user_agent": "a\nb\x07"})
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_a_traceback_is_readable_on_a_terminal() -> None:
    stream = io.StringIO()
    with open_logs("console", stream=stream):
        try:
            raise ValueError("hunter2")
        except ValueError:
            local = JWT  # noqa: F841 - must not be shown
            log.exception("it failed")
    assert "\nValueError: hunter2" in stream.getvalue()
    assert JWT not in stream.getvalue()


def test_a_line_has_time_logger_and_request_id(lines) -> None:
    enter_call(Call("/a.B/C", "ipv4:127.0.0.1:1", "id-1"))
    log.info("it is %s", "well", extra={"duration_ms": 1.5})
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "test.of.the.log",
        "event": "it is well",
        "duration_ms": 1.5,
        "request_id": "id-1",
    }


def test_a_line_has_the_ids_of_its_trace(lines) -> None:
    log.info("not traced")
    enter_trace(CallTrace("a.B/C", "/a.B/C", "", SpanRef(0x1234, 0x56, sampled=False), None, 0.0, 0))
    log.info("traced")
    not_traced, traced = lines()
    assert (traced["trace_id"], traced["span_id"]) == (f"{0x1234:032x}", f"{0x56:016x}")
    assert "trace_id" not in not_traced


def test_loggers_of_libraries_structlog_and_warnings_use_the_same_pipeline(lines) -> None:
    own = logging.getLogger("library.with.a.handler.of.its.own")
    stolen = io.StringIO()
    own.addHandler(logging.StreamHandler(stolen))
    own.propagate = False
    logging.getLogger("httpx").info("GET https://idp.example.org/?token=hunter2")
    logging.getLogger("httpx").warning("httpx warns")
    logging.getLogger("grpc._cython.cygrpc").error("grpc fails")
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT 'hunter2'")
    structlog.get_logger("of.structlog").info("bound", number=3)
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    with open_logs("json", stream=(second := io.StringIO())) as again:
        own.warning("adopted")
        again.close()
    assert stolen.getvalue() == ""
    assert json.loads(second.getvalue())["event"] == "adopted"
    written = lines()
    assert [line["event"].split("\n")[0] for line in written[:3]] == ["httpx warns", "grpc fails", "bound"]
    assert written[2]["number"] == 3
    assert written[2]["logger"] == "of.structlog"
    assert written[3]["logger"] == "py.warnings"
    assert "hunter2" not in json.dumps(written)


def test_uncaught_exceptions_are_logged(lines) -> None:
    try:
        raise ValueError(f"bad {JWT}")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    def fail() -> None:
        raise ValueError(f"worse {JWT}")

    thread = threading.Thread(target=fail, name="worker-1")
    thread.start()
    thread.join()
    first, second = lines()
    assert (first["level"], first["event"]) == ("critical", "uncaught")
    assert second["event"] == "uncaught in thread worker-1"
    assert JWT not in json.dumps([first, second])


def test_arguments_that_do_not_fit_are_not_printed(capfd) -> None:
    stream = io.StringIO()
    with open_logs("json", stream=stream):  # instead of pytest's handlers, which raise
        log.warning("%d of %d", "hunter2", 3)
    assert json.loads(stream.getvalue())["event"] == "%d of %d [its arguments do not fit]"
    assert "hunter2" not in capfd.readouterr().err


def test_a_field_without_a_text_does_not_lose_the_line(lines) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no")

    log.warning("it came", extra={"what": Odd(), "share": float("nan")})
    (line,) = lines()
    assert (line["what"], line["share"]) == ("[Odd]", "nan")


def test_lines_below_the_level_are_not_written(lines) -> None:
    log.debug("quiet")
    structlog.get_logger("x").debug("quiet")
    assert lines() == []


def test_the_format_follows_the_stream() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        with open_logs("auto", stream=stream):
            log.warning("hello")
        assert stream.getvalue().startswith("{") is is_json


def test_closing_restores_the_previous_configuration() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, sys.excepthook, logging.getLogger("httpx").level)
    open_logs("json", "debug", stream=io.StringIO()).close()
    assert (list(root.handlers), root.level, sys.excepthook, logging.getLogger("httpx").level) == before


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_limited_and_reported_once() -> None:
    stream, clock = io.StringIO(), Clock()
    with open_logs("json", stream=stream, limit=LogLimit(ordinary=LineRate(10, 20), now=clock), report_every=3600) as logs:
        for number in range(1000):
            log.warning("number %d", number)
        log.warning("something else")
        assert logs.suppressed == 980
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    reports = [line for line in written if line["event"] == "suppressed"]
    assert [line["event"] for line in written[:20]] == [f"number {number}" for number in range(20)]
    assert written[20]["event"] == "something else"
    assert [(line["of"], line["count"], line["level"]) for line in reports] == [("number %d", 980, "warning")]


def test_a_bucket_refills() -> None:
    clock = Clock()
    limit = LogLimit(ordinary=LineRate(10, 20), now=clock)
    assert sum(limit.passes("a", logging.INFO, "x") for _ in range(100)) == 20
    clock.now += 1
    assert sum(limit.passes("a", logging.INFO, "x") for _ in range(100)) == 10
    (report,) = limit.report()
    assert report.count == 170
    assert limit.report() == []


def test_errors_are_logged_during_a_flood_at_another_level() -> None:
    clock = Clock()
    limit = LogLimit(ordinary=LineRate(1, 5), level=LineRate(1, 50), now=clock)
    assert sum(limit.passes("a", logging.INFO, f"event {number}") for number in range(5000)) == 50
    assert limit.passes("a", logging.ERROR, "the disk is full")
    for _ in range(100):
        limit.passes("a", logging.ERROR, "the disk is full")
    clock.now += 1
    assert limit.passes("a", logging.ERROR, "the disk is full")  # never suppressed for good


def test_the_number_of_events_with_a_limit_is_bounded_and_no_count_is_lost() -> None:
    limit = LogLimit(ordinary=LineRate(1, 1), level=LineRate(0.001, 1), now=Clock())
    passed = sum(limit.passes("a", logging.INFO, f"event {number}") for number in range(10_000))
    report = limit.report()
    assert len(report) <= 1025
    assert sum(one.count for one in report) == limit.suppressed == 10_000 - passed


def test_an_event_after_1024_others_starts_with_a_new_bucket() -> None:
    limit = LogLimit(ordinary=LineRate(1, 1), now=Clock())
    assert [limit.passes("a", logging.INFO, "first") for _ in range(2)] == [True, False]
    for number in range(1024):
        limit.passes("a", logging.INFO, f"event {number}")
    assert limit.passes("a", logging.INFO, "first")


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="has to let lines through"):
        LineRate(0, 1)


def test_logging_does_not_wait_for_a_reader() -> None:
    """A pipe that is not read: lines beyond the bound are counted, and the others are written once it is."""
    sent = 12_000  # the queue has room for 9,000 of them, the pipe for some 650, and the thread has a batch in hand
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        logs = open_logs("json", stream=stream, limit=LogLimit(ordinary=LineRate(1e9, 10**9), level=LineRate(1e9, 10**9)))
        try:
            for number in range(sent):
                log.info("line %d", number)
            for number in range(500):
                log.error("error %d", number)  # they have reserved room
            dropped = logs.dropped
            assert 0 < dropped < sent
            received, newlines = [], 0
            while newlines < sent + 500 - dropped:
                received.append(os.read(reading, 1 << 16))
                newlines += received[-1].count(b"\n")
        finally:
            logs.close()
    os.close(reading)
    events = [json.loads(line)["event"] for line in b"".join(received).splitlines()]
    assert sum(event.startswith("error") for event in events) == 500
    assert len(events) + dropped == sent + 500


def test_lines_for_a_broken_stream_are_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        logs = open_logs("json", stream=stream)
        log.error("lost")
        logs.close()
        assert logs.dropped == 1


def test_waiting_lines_are_bounded_by_size_too() -> None:
    gate = threading.Event()

    def render(text: str) -> bytes:
        gate.wait(30)
        return text.encode()

    writer: LogWriter[str] = LogWriter(io.StringIO(), render, max_characters=1000)
    taken = sum(writer.put("x", 100) for _ in range(50))
    assert taken in {9, 10}  # the thread may have taken the first
    assert writer.put("important", 100, important=True)
    assert writer.dropped == 50 - taken
    gate.set()
    assert writer.close(30)


def test_the_log_in_force_is_the_last_one_opened():
    logging.root.handlers = []
    assert in_force() is None
    with open_logs("json", stream=io.StringIO()) as outer:
        assert in_force() is outer
        with open_logs("json", stream=io.StringIO()) as inner:
            assert in_force() is inner
        assert in_force() is outer
    assert in_force() is None


def test_lines_are_written_whole_and_no_more_at_a_time_than_a_pipe_takes_in_one_piece() -> None:
    """So that processes that share a pipe do not tear each other's lines."""
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    writer = LogWriter(Stream(), lambda number: b"%d" % number * 100 + b"\n")
    for number in range(2000):
        writer.put(number)
    assert writer.close(30)
    assert "".join(written).count("\n") == 2000
    assert all(piece.endswith("\n") and len(piece) <= 4096 for piece in written)
