"""Quota classes: what a file may say, which class a caller is in, and how the file is followed."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from interceptors.calls.principal import Principal
from interceptors.calls.security_event import Event, SecurityEvent
from interceptors.calls.subject import subject_of
from interceptors.quota.classes import BUILT_IN, QuotaClass, QuotaClasses, limits
from interceptors.quota.classes_text import built_in, parse
from interceptors.quota.stores.base import Bucket, Charge, Slots
from interceptors.rules.file import RulesFile
from interceptors.rules.toml_text import MAX_BYTES, RulesError
from tests import PROJECT

EXAMPLE = PROJECT / "deploy" / "quotas.example.toml"
FULL = """\
[classes.default]
requests_per_second = 10
burst = 20
audio_seconds_per_minute = 600
audio_seconds_per_day = 36000
bytes_per_minute = 104857600
calls_in_flight = 8
streams_in_flight = 4
priority = "normal"
"""


def classes(text: str) -> QuotaClasses:
    return parse(text, "quotas.toml")


def principal(name: str) -> Principal:
    return Principal(name, "api_key")


def test_a_class_is_what_the_file_says():
    found = classes(FULL).of(principal("key:1"))
    assert found == QuotaClass(
        "default",
        "normal",
        requests=Bucket("requests_per_second", 10.0, 20.0),
        audio_minute=Bucket("audio_seconds_per_minute", 10.0, 600.0),
        audio_day=Bucket("audio_seconds_per_day", 36000 / 86400, 36000.0),
        bytes=Bucket("bytes_per_minute", 104857600 / 60, 104857600.0),
        calls=Slots("calls_in_flight", 8),
        streams=Slots("streams_in_flight", 4),
    )


def test_a_quota_that_is_left_out_is_unlimited():
    found = classes('[classes.default]\n[classes.x]\npriority = "low"\naudio_seconds_per_day = 60\n')
    assert found.classes["default"] == QuotaClass("default")
    assert found.classes["default"].charges(requests=1, audio_seconds=1e9, size=1e15) == ()
    assert found.classes["default"].slots(stream=True) == ()
    x = found.classes["x"]
    assert x.charges(requests=1, audio_seconds=5, size=7) == (Charge(x.buckets[0], 5),)


def test_charges_are_of_the_quotas_that_a_cost_is_given_for():
    found = classes(FULL).classes["default"]
    assert found.charges(requests=1) == (Charge(found.requests, 1),)
    assert found.charges(audio_seconds=0) == (Charge(found.audio_minute, 0), Charge(found.audio_day, 0))
    assert [charge.bucket.name for charge in found.charges(requests=1, audio_seconds=3, size=9)] == [
        "requests_per_second",
        "audio_seconds_per_minute",
        "audio_seconds_per_day",
        "bytes_per_minute",
    ]
    assert found.slots(stream=False) == (Slots("calls_in_flight", 8),)
    assert found.slots(stream=True) == (Slots("calls_in_flight", 8), Slots("streams_in_flight", 4))


def test_a_burst_defaults_to_the_amount_of_its_rate():
    text = "[classes.default]\nrequests_per_second = 0.5\naudio_seconds_per_minute = 600\naudio_seconds_burst = 7200\n"
    text += "bytes_per_minute = 60\nbytes_burst = 10.5\n"
    found = classes(text).classes["default"]
    assert found.requests == Bucket("requests_per_second", 0.5, 1.0)
    assert found.audio_minute == Bucket("audio_seconds_per_minute", 10.0, 7200.0)
    assert found.bytes == Bucket("bytes_per_minute", 1.0, 10.5)
    assert classes("[classes.default]\nrequests_per_second = 3\n").classes["default"].requests.burst == 3


CLASSES = "".join(f"[classes.{name}]\n" for name in ("default", "a", "b", "c", "d"))


def test_the_most_specific_rule_wins_in_any_order():
    found = classes(
        CLASSES
        + """
        [principals]
        "mtls:*" = "a"
        "mtls:spiffe://example.org/*" = "b"
        "mtls:spiffe://example.org/batch/*" = "c"
        "mtls:spiffe://example.org/batch/7" = "d"
        """
    )
    expected = {
        "mtls:x": "a",
        "mtls:spiffe://example.org/web": "b",
        "mtls:spiffe://example.org/batch/8": "c",
        "mtls:spiffe://example.org/batch/7": "d",
        "mtls:spiffe://example.org.attacker.net/batch/7": "a",
        "jwt:https://idp#mtls:x": "default",
        "key:1": "default",
    }
    assert {name: found.of(principal(name)).name for name in expected} == expected


def test_of_two_patterns_of_one_length_the_first_wins():
    one, other = '"mtls:*.example.org" = "a"\n', '"mtls:batch.example.*" = "b"\n'
    assert classes(f"{CLASSES}[principals]\n{one}{other}").of(principal("mtls:batch.example.org")).name == "b"
    one, other = '"mtls:x.*" = "a"\n', '"mtls:*.y" = "b"\n'
    assert classes(f"{CLASSES}[principals]\n{one}{other}").of(principal("mtls:x.y")).name == "a"
    assert classes(f"{CLASSES}[principals]\n{other}{one}").of(principal("mtls:x.y")).name == "b"


def test_a_star_in_a_name_is_not_a_pattern():
    """The subject of a token may contain a star, and gets no more than the pattern grants."""
    found = classes(f'{CLASSES}[principals]\n"key:*" = "a"\n"jwt:idp#*" = "b"\n')
    assert found.of(principal("jwt:idp#*")).name == "b"
    assert found.of(principal("jwt:*")).name == "default"


def test_a_caller_without_a_principal_is_anonymous():
    assert classes(CLASSES).of(None).name == "default"
    assert classes(f"{CLASSES}[classes.anonymous]\n").of(None).name == "anonymous"


@pytest.mark.parametrize(
    ("peer", "subject"),
    [
        ("ipv4:127.0.0.1:49534", "peer:127.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:443", "peer:2001:db8::/64"),
        ("ipv6:[2001:db8::ffff:1]:443", "peer:2001:db8::/64"),
        ("ipv6:[2001:db8:0:1::1]:443", "peer:2001:db8:0:1::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:443", "peer:fe80::/64"),
        ("ipv6:[::ffff:192.0.2.7]:443", "peer:192.0.2.7"),
        ("unix:/run/aligner.sock", "peer:unix"),
        ("ipv4:nonsense", "peer:unknown"),
        ("", "peer:unknown"),
    ],
)
def test_a_caller_without_a_principal_is_counted_by_host(peer, subject):
    assert subject_of(None, peer) == subject
    assert subject_of(principal("key:1"), peer) == "key:1"


D = "[classes.default]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "quotas.toml: there is no class default; add [classes.default], for all other principals"),
        ("[classes.a]\n", "quotas.toml, line 1: there is no class default; add [classes.default], for all other principals"),
        ("[clases.default]\n", 'quotas.toml, line 1: no such table: "clases"; did you mean "classes"?'),
        (f"{D}[foo]\n", 'quotas.toml, line 2: no such table: "foo"; use one of classes, principals'),
        (f"{D}burts = 5\n", 'quotas.toml, line 2: "burts": no such limit; did you mean "burst"?'),
        (
            f"{D}burst = 5\n",
            'quotas.toml, line 2: "burst": it has no effect without requests_per_second; add requests_per_second',
        ),
        (f"{D}requests_per_second = 0\n", 'line 2: "requests_per_second": a number above 0 is needed; leave it out for no limit'),
        (f"{D}requests_per_second = -1\n", 'line 2: "requests_per_second": a number above 0 is needed'),
        (f'{D}requests_per_second = "5"\n', "a number above 0 is needed; write it without quotes"),
        (f"{D}requests_per_second = true\n", "a number above 0 is needed"),
        (f"{D}requests_per_second = nan\n", "a number above 0 is needed"),
        (f"{D}requests_per_second = inf\n", "a number above 0 is needed"),
        (f"{D}requests_per_second = 1\nburst = 0.5\n", 'line 3: "burst": a request costs 1; write 1 or more'),
        (f"{D}requests_per_second = 0.001\nburst = 1e9\n", 'line 3: "burst": an empty bucket would take more than a month'),
        (f"{D}calls_in_flight = 0.5\n", 'line 2: "calls_in_flight": calls are counted whole'),
        (f"{D}calls_in_flight = 0\n", 'line 2: "calls_in_flight": a number above 0'),
        (f'{D}priority = "urgent"\n', 'line 2: "priority": no such priority; use one of low, normal, high'),
        (f"{D}priority = 1\n", 'line 2: "priority": no such priority'),
        ("[classes]\ndefault = 5\n", 'line 2: "default": a class is a table; begin it with [classes.default]'),
        ('classes = "x"\n', "line 1: classes is not a table"),
        (f'{D}[classes."a b"]\n', "line 2: a class has a name of letters, digits, - and _, 64 at most; rename it"),
        (f'{D}[principals]\n"key:*" = "defalt"\n', 'line 3: "key:*": no such class: "defalt"; did you mean "default"?'),
        (f'{D}[principals]\n"key:*" = ["default"]\n', 'line 3: "key:*": the name of one class is needed'),
        (f'{D}[principals]\n"*" = "default"\n', 'line 3: "*": every principal is in the class default already'),
        (f'{D}[principals]\n"bob" = "default"\n', 'line 3: "bob": a principal\'s name says how it was proven'),
        (f'{D}[principals]\n"peer:1" = "default"\n', "a principal's name says how it was proven"),
        (f'{D}[principals]\n"key:a*" = "default"\n', 'line 3: "key:a*": a * stands for a whole part of a name'),
        (f'{D}\n[principals]\n"key:1" = "default"\n"key:1" = "default"\n', "quotas.toml, line 5: not valid TOML: "),
        (f"{D}burst = = 5\n", "quotas.toml, line 2: not valid TOML: "),
        (f"{D}{D}", "quotas.toml, line 2: not valid TOML: "),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_what_to_do(text, fault):
    with pytest.raises(RulesError) as error:
        classes(text)
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fault_is_placed_at_the_line_of_its_key():
    text = f"{FULL}[classes.batch]\nrequests_per_second = 1\nburst = 0\n"
    with pytest.raises(RulesError, match=r"line 12: "):
        classes(text)


def test_the_built_in_classes_and_the_example_are_good():
    found = built_in()
    assert list(found.classes) == ["default"]
    whole = found.classes["default"]
    assert len(whole.buckets) == 4
    assert len(whole.slots(stream=True)) == 2
    # The longest recording that a server takes by default fits into the burst.
    assert min(charge.bucket.burst for charge in whole.charges(audio_seconds=1)) >= 4 * 3600
    written = dict(line.split(" = ") for line in BUILT_IN.splitlines()[1:-1])
    assert dict(limits(whole)) == written | {"bytes_burst": "1073741824", "priority": "normal"}
    example = parse(EXAMPLE.read_text(), "example")
    assert set(example.classes) >= {"default", "batch"}
    assert example.principals


def test_changes_are_summed_up_in_one_line():
    new = classes(
        FULL.replace("burst = 20", "burst = 40").replace("calls_in_flight = 8\n", "")
        + '[classes.partner]\n[principals]\n"key:*" = "partner"\n"key:2" = "partner"\n'
    )
    old = classes(FULL + '[classes.batch]\n[principals]\n"key:1" = "batch"\n"key:2" = "default"\n')
    assert new.changes_since(old) == (
        "-batch; default (burst 20 -> 40, calls_in_flight 8 -> unlimited); +partner; "
        "principals: +key:* (partner), -key:1 (batch), key:2 (default -> partner)"
    )
    assert new.changes_since(new) == "no limit has changed"
    crowd = classes(D + "".join(f"[classes.c{number}]\n" for number in range(200)))
    assert len(crowd.changes_since(old)) <= 400


def ignore(event: SecurityEvent) -> None:
    pass


class TestFile:
    def test_a_bad_or_missing_file_is_refused_at_the_start(self, tmp_path):
        path = tmp_path / "quotas.toml"
        with pytest.raises(RulesError, match="cannot be read: no such file"):
            RulesFile(path, parse, ignore, 1.0)
        path.write_text("[classes.default]\nburts = 5\n")
        with pytest.raises(RulesError, match=r"quotas\.toml, line 2: "):
            RulesFile(path, parse, ignore, 1.0)
        path.write_bytes(b"[classes.default]\n# caf\xe9\n")
        with pytest.raises(RulesError, match=r"quotas\.toml, line 2: not UTF-8"):
            RulesFile(path, parse, ignore, 1.0)
        path.write_bytes(b"#" * (MAX_BYTES + 5))
        with pytest.raises(RulesError, match="larger than 256 KiB"):
            RulesFile(path, parse, ignore, 1.0)

    def test_a_bad_reload_keeps_what_is_in_force_and_says_why(self, tmp_path):
        path, events = tmp_path / "quotas.toml", []
        path.write_text(FULL)
        file = RulesFile(path, parse, events.append, 1.0)
        before = file.current
        path.write_text(FULL.replace("burst = 20", "burst = 0"))
        file.reload()
        assert file.current is before
        assert [event.event for event in events] == [Event.POLICY_RELOAD_FAILED]
        assert events[0].detail.startswith(f"{path}, line 3: ")
        path.write_text(FULL.replace("burst = 20", "burst = 40"))
        file.reload()
        assert file.current.of(None).requests.burst == 40
        assert events[1].event is Event.POLICY_CHANGED
        old, new = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (FULL, path.read_text()))
        assert events[1].detail == f"{path}: sha256 {old} -> {new}; default (burst 20 -> 40)"
        file.reload()
        assert len(events) == 2
        path.unlink()
        file.reload()
        assert events[2].event is Event.POLICY_RELOAD_FAILED
        path.write_text(FULL.replace("burst = 20", "burst = 40"))
        file.reload()
        assert events[3].detail.endswith("; no limit has changed")

    async def test_the_file_is_followed(self, tmp_path):
        path, recorded = tmp_path / "quotas.toml", asyncio.Event()
        path.write_text(FULL)
        file = RulesFile(path, parse, lambda _: recorded.set(), 0.01)
        await file.start()
        path.write_text(FULL + "[classes.more]\n")
        async with asyncio.timeout(60):
            await recorded.wait()
        assert "more" in file.current.classes
        await file.close()
        await file.close()
