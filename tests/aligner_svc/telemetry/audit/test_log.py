"""The audit log: whole lines, none lost, none forged, and a caller that never waits for the disk."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aligner_svc.config.security import AuditSettings
from aligner_svc.telemetry.audit import log as audit
from aligner_svc.telemetry.audit.log import DROPPED, AuditError, AuditLog, open_audit
from interceptors.auth.jwt.access_token import TokenCheck
from interceptors.calls.security_event import Event, SecurityEvent
from tests import PROJECT
from tests.kit.waiting import eventually_blocking

FAILED = Event.AUTHENTICATION_FAILED
DOCS = PROJECT / "docs" / "audit.md"


def failed(number: object, **fields: str) -> SecurityEvent:
    return SecurityEvent(FAILED, request_id=str(number), **fields)


def lines(path: Path) -> list[dict]:
    """Every line is an event, or the test fails."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def ids(found: list[dict]) -> list[str]:
    return [line["request_id"] for line in found]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "audit.log"


@pytest.mark.parametrize("name", [*Event, *TokenCheck, DROPPED])
def test_every_event_and_check_is_documented(name) -> None:
    assert f"`{name}`" in DOCS.read_text()


@pytest.fixture
def fast_retries(monkeypatch) -> None:
    monkeypatch.setattr(audit, "_RETRY", 0.001)
    monkeypatch.setattr(audit, "_CLOSE_TIMEOUT", 60.0)


def test_the_fields_of_a_line_have_a_fixed_order(path) -> None:
    log = AuditLog(path, now=lambda: 1_767_225_600.0625)
    log.record(
        SecurityEvent(
            FAILED,
            check="expired",
            principal="jwt:https://idp#a",
            detail="d",
            request_id="r-1",
            peer="ipv4:192.0.2.1:4711",
            method="/pkg.A/B",
            user_agent="grpc",
        )
    )
    log.record(SecurityEvent(Event.POLICY_CHANGED, detail="policy.toml"))
    log.close()
    assert path.read_text() == (
        '{"time": "2026-01-01T00:00:00.062Z", "event": "authentication_failed", "check": "expired", '
        '"principal": "jwt:https://idp#a", "request_id": "r-1", "peer": "ipv4:192.0.2.1:4711", "method": "/pkg.A/B", '
        '"user_agent": "grpc", "detail": "d"}\n'
        '{"time": "2026-01-01T00:00:00.062Z", "event": "policy_changed", "detail": "policy.toml"}\n'
    )


@pytest.mark.parametrize(
    "hostile", ['"}\n{"event": "key_created"}', "\x1b[2J\x9b", "a\u2028b\u2029c\x85d\x7f", "\ud800", '\\", "event": "x', "\r\n\0"]
)
def test_a_caller_cannot_forge_a_line(path, hostile) -> None:
    log = AuditLog(path)
    log.record(failed(1, user_agent=hostile))
    log.close()
    raw = path.read_bytes()
    assert all(0x20 <= byte < 0x7F for byte in raw[:-1])
    assert raw.endswith(b"\n")
    [line] = lines(path)
    assert (line["event"], line["user_agent"]) == (FAILED, hostile)


def test_fields_are_bounded(path) -> None:
    log = AuditLog(path)
    log.record(failed(1, user_agent="x" * 512, detail="\n" * 100_000))
    log.close()
    [line] = lines(path)
    assert line["user_agent"] == "x" * 512
    assert line["detail"] == "\n" * 511 + "…"


def test_the_file_is_not_readable_by_others(path) -> None:
    before = os.umask(0)
    try:
        AuditLog(path).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("where", ["none/audit.log", "."])
def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path, where) -> None:
    with pytest.raises(AuditError, match=r"cannot be opened: (no such file|is a directory).*audit\.file"):
        open_audit(AuditSettings(file=tmp_path / where))


def test_a_named_pipe_without_a_reader_does_not_block_the_start(path) -> None:
    os.mkfifo(path)
    with pytest.raises(AuditError, match="cannot be opened"):
        open_audit(AuditSettings(file=path))


def test_without_a_file_events_go_to_the_stream_given_else_to_stdout(capfd) -> None:
    stream = io.StringIO()
    log = open_audit(AuditSettings(), stream=stream)
    log.record(failed(1))
    log.close()
    assert json.loads(stream.getvalue())["request_id"] == "1"
    log = open_audit(AuditSettings())
    for number in range(20):
        log.record(failed(number))
    log.close()
    assert ids([json.loads(line) for line in capfd.readouterr().out.splitlines()]) == [str(n) for n in range(20)]


def test_existing_lines_are_kept_and_a_torn_last_line_is_ended(path) -> None:
    path.write_text('{"event": "old"}\n{"event": "cut')
    log = AuditLog(path)
    log.record(failed(1))
    log.record(failed(2))
    log.close()
    old, cut, *new = path.read_text().splitlines()
    assert (old, cut) == ('{"event": "old"}', '{"event": "cut')
    assert ids([json.loads(line) for line in new]) == ["1", "2"]


def test_concurrent_threads_and_rotations_lose_and_tear_no_line(path) -> None:
    log = AuditLog(path)
    threads, each = 4, 1500
    halfway = [threading.Event() for _ in range(threads)]

    def work(thread: int) -> None:
        for number in range(each):
            log.record(failed(f"{thread}-{number}", user_agent="x" * 200))
            if number == each // 2:
                halfway[thread].set()

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    rotated = []
    for event in halfway:
        event.wait()
        rotated.append(path.with_name(f"audit.log.{len(rotated)}"))
        if path.exists():  # the next event creates it again
            path.rename(rotated[-1])
    path.touch()  # as logrotate's `create` does
    for worker in workers:
        worker.join()
    log.record(failed("last"))
    log.close()
    assert log.dropped == 0
    found = [line for file in (*rotated, path) if file.exists() for line in lines(file)]
    assert sorted(ids(found)) == sorted([f"{t}-{n}" for t in range(threads) for n in range(each)] + ["last"])
    assert ids(lines(path))[-1] == "last"
    for thread in range(threads):  # in the order in which they were recorded
        mine = [name for name in ids(found) if name.startswith(f"{thread}-")]
        assert len(mine) == each


class Wrote:
    """Waits until the log's thread has written a line."""

    def __init__(self, monkeypatch) -> None:
        self.count = threading.Semaphore(0)
        real = os.write

        def write(fd: int, data: bytes) -> int:
            done = real(fd, data)
            if b'"event"' in data:
                self.count.release()
            return done

        monkeypatch.setattr(audit.os, "write", write)

    def wait(self) -> None:
        assert self.count.acquire(timeout=60)


@pytest.mark.parametrize("how", ["renamed", "renamed and made anew", "removed", "truncated"])
def test_a_rotated_log_is_continued_in_a_new_file_of_its_name(path, monkeypatch, how) -> None:
    wrote = Wrote(monkeypatch)
    log = AuditLog(path)
    log.record(failed("before"))
    wrote.wait()
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        path.with_name("copy").write_bytes(path.read_bytes())
        os.truncate(path, 0)
    else:
        path.rename(path.with_name("copy"))
        if how.endswith("anew"):
            path.touch()
    log.record(failed("after"))
    wrote.wait()
    log.close()
    assert ids(lines(path)) == ["after"]
    if how != "removed":
        assert ids(lines(path.with_name("copy"))) == ["before"]


_OTHER = """
import sys
from pathlib import Path
from aligner_svc.telemetry.audit.log import AuditLog
from interceptors.calls.security_event import Event, SecurityEvent
log = AuditLog(Path(sys.argv[1]))
for number in range(3000):
    log.record(SecurityEvent(Event.KEY_CREATED, request_id=f"{sys.argv[2]}-{number}", detail="x" * 300))
log.close()
"""


def test_processes_append_to_one_file_without_tearing_each_others_lines(path) -> None:
    others = [subprocess.Popen([sys.executable, "-c", _OTHER, path, str(n)]) for n in range(2)]
    assert [other.wait(100) for other in others] == [0, 0]
    found = ids(lines(path))
    for n in range(2):
        assert [name for name in found if name.startswith(f"{n}-")] == [f"{n}-{number}" for number in range(3000)]


def test_events_refused_by_a_full_disk_are_written_once_there_is_room(path, fast_retries, caplog, monkeypatch) -> None:
    refused = threading.Event()
    real = os.write

    def write(fd: int, data: bytes) -> int:
        try:
            return real(fd, data)
        except OSError:
            refused.set()
            raise

    monkeypatch.setattr(audit.os, "write", write)
    path.symlink_to("/dev/full")
    with caplog.at_level(logging.ERROR):
        log = AuditLog(path)
        for number in range(5):
            log.record(failed(number))
        assert refused.wait(60)
        path.with_name("new").touch()
        path.with_name("new").replace(path)
        log.record(failed(5))
        log.close()
    assert ids(lines(path)) == ["0", "1", "2", "3", "4", "5"]
    assert log.dropped == 0
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"audit log {path}: not written: no space left on device; trying again"]  # once, for many attempts


def test_a_line_that_was_cut_by_a_full_disk_leaves_nothing_of_it(path, fast_retries) -> None:
    """A limit on the size of files stands for the end of the disk: the kernel writes up to it, and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = AuditLog(path)
    log.record(failed(0))
    eventually_blocking(lambda: path.read_bytes().endswith(b"\n"))
    whole = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        log.record(failed(1))
        assert log.close()  # the disk stays full to the end
        assert path.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.dropped == 1


def test_a_line_that_was_cut_stays_where_another_process_has_appended_to_it(path) -> None:
    path.write_bytes(b"ours, cu")
    with path.open("ab") as ours, path.open("ab") as other:
        ours.write(b"t")
        ours.flush()
        other.write(b"theirs\n")
        other.flush()
        assert not audit._cut_off(ours.fileno(), 1)
    assert path.read_bytes() == b"ours, cuttheirs\n"


def test_a_disk_that_stays_full_does_not_block_the_shutdown(fast_retries, caplog) -> None:
    with caplog.at_level(logging.ERROR):
        log = AuditLog(Path("/dev/full"))
        for number in range(7):
            log.record(failed(number))
        log.close()
    assert log.dropped == 7
    assert "audit log /dev/full: 7 lines are lost" in caplog.text


def test_a_line_that_was_cut_is_written_again_whole(path, monkeypatch, fast_retries) -> None:
    """A disk fills up in the middle of a line."""
    real, calls, again = os.write, [], threading.Event()

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return real(fd, data[:30])
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        again.set()
        return real(fd, data)

    monkeypatch.setattr(audit.os, "write", write)
    log = AuditLog(path)
    log.record(failed("cut"))
    log.record(failed("next"))
    assert again.wait(60)
    log.close()
    assert ids(lines(path)) == ["cut", "next"]


def test_events_beyond_the_bound_are_counted_and_reported_once(path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(audit, "_MAX_WAITING", 10)
    entered, release = threading.Event(), threading.Event()
    real = os.write

    def write(fd: int, data: bytes) -> int:
        entered.set()
        assert release.wait(60)
        return real(fd, data)

    monkeypatch.setattr(audit.os, "write", write)
    log = AuditLog(path)
    log.record(failed("first"))
    assert entered.wait(60)  # the disk hangs now, while one event is being written
    with caplog.at_level(logging.ERROR):
        for number in range(25):
            log.record(failed(number))
    assert log.dropped == 15
    assert caplog.text.count("events are lost") == 1
    release.set()
    log.close()
    *kept, report = lines(path)
    assert ids(kept) == ["first", *map(str, range(10))]
    assert (report["event"], report["count"]) == ("audit_dropped", 15)


def test_events_after_the_close_are_lost_and_logged(path, caplog) -> None:
    log = AuditLog(path)
    log.record(failed(1))
    log.close()
    log.close()
    log.record(failed(2))
    assert ids(lines(path)) == ["1"]
    assert log.dropped == 1
    assert "events are lost: it is closed" in caplog.text


def test_a_closed_stream_raises_nothing() -> None:
    stream = io.StringIO()
    log = AuditLog(None, stream=stream)
    stream.close()
    log.record(failed(1))
    log.close()
    assert log.dropped == 1


def test_a_pipe_without_a_reader_blocks_neither_the_caller_nor_the_shutdown(monkeypatch) -> None:
    monkeypatch.setattr(audit, "_CLOSE_TIMEOUT", 0.01)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as stream:
        log = AuditLog(None, stream=stream)
        for number in range(2000):  # some 200 KB, a pipe takes 64
            log.record(failed(number))
        assert not log.close()
        os.set_blocking(reader, False)
        while not log.close():  # so that the next test does not inherit the thread
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 1 << 16)
