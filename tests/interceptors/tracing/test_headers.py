"""Trace headers of clients, and sampling."""

from __future__ import annotations

import grpc
import pytest

from interceptors.tracing.headers import Parent, TraceHeaders
from interceptors.tracing.sampling import FAULTS, Sampling, SamplingRules

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IDS = int(TRACE, 16), int(SPAN, 16)


def w3c(*metadata: tuple[str, str | bytes]) -> Parent | None:
    return TraceHeaders(["tracecontext"]).parent(metadata)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # level 2: the trace id is random
        (f"00-{TRACE}-{SPAN}-02", False),
        (f" 00-{TRACE}-{SPAN}-01\t", True),
        (f"cc-{TRACE}-{SPAN}-01", True),  # a later version
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_traceparent_names_the_callers_span(header, sampled) -> None:
    assert w3c(("traceparent", header)) == Parent(*IDS, sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 500}",
        f"00-{chr(0x660) * 32}-{SPAN}-01",  # digits of another script
    ],
)
def test_a_malformed_traceparent_is_ignored(header) -> None:
    assert w3c(("traceparent", header)) is None


def test_several_traceparents_are_ignored() -> None:
    assert w3c(("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN[::-1]}-01")) is None


def test_a_tracestate_is_kept_and_its_parts_are_joined() -> None:
    parent = f"00-{TRACE}-{SPAN}-01"
    assert w3c(("tracestate", "a=1"), ("traceparent", parent), ("tracestate", "b=2")) == Parent(*IDS, True, "a=1,b=2")
    assert w3c(("traceparent", parent), ("tracestate", "a=" + "x" * 511)) == Parent(*IDS, True)
    assert w3c(("tracestate", "a=1")) is None


def test_other_headers_and_bytes_are_ignored() -> None:
    assert w3c(("traceparent", b"00"), ("b3", f"{TRACE}-{SPAN}-1"), ("x", "y")) is None
    assert TraceHeaders(["tracecontext"]).parent(None) is None


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (f"{TRACE}-{SPAN}-1", Parent(*IDS, True)),
        (f"{TRACE}-{SPAN}-d", Parent(*IDS, True)),
        (f"{TRACE}-{SPAN}-0", Parent(*IDS, False)),
        (f"{TRACE}-{SPAN}", Parent(*IDS, None)),
        (f"{TRACE}-{SPAN}-1-{SPAN}", Parent(*IDS, True)),
        (f"{TRACE[16:]}-{SPAN}-1", Parent(int(TRACE[16:], 16), IDS[1], True)),
        (f"{TRACE.upper()}-{SPAN}-1", Parent(*IDS, True)),
        ("0", Parent(0, 0, False)),
        ("1", Parent(0, 0, True)),
        ("d", Parent(0, 0, True)),
        ("", None),
        ("2", None),
        (f"{TRACE}-{SPAN[1:]}-1", None),
        (f"{TRACE[1:]}-{SPAN}-1", None),
        (f"{'0' * 32}-{SPAN}-1", None),
        (f"{TRACE}-{SPAN}-1-{SPAN}-more", None),
    ],
)
def test_b3_in_one_header(header, parent) -> None:
    assert TraceHeaders(["b3"]).parent([("b3", header)]) == parent


@pytest.mark.parametrize(
    ("headers", "parent"),
    [
        ({"traceid": TRACE, "spanid": SPAN, "sampled": "1"}, Parent(*IDS, True)),
        ({"traceid": TRACE, "spanid": SPAN, "sampled": "true"}, Parent(*IDS, True)),
        ({"traceid": TRACE, "spanid": SPAN, "sampled": "0"}, Parent(*IDS, False)),
        ({"traceid": TRACE, "spanid": SPAN}, Parent(*IDS, None)),
        ({"traceid": TRACE, "spanid": SPAN, "flags": "1"}, Parent(*IDS, True)),
        ({"sampled": "0"}, Parent(0, 0, False)),
        ({"traceid": TRACE, "sampled": "1"}, Parent(0, 0, True)),
        ({"traceid": TRACE}, None),
        ({"traceid": "", "spanid": ""}, None),
    ],
)
def test_b3_in_several_headers(headers, parent) -> None:
    assert TraceHeaders(["b3multi"]).parent([(f"x-b3-{name}", value) for name, value in headers.items()]) == parent


def test_the_first_format_found_is_used() -> None:
    metadata = [("b3", "0"), ("traceparent", f"00-{TRACE}-{SPAN}-01")]
    assert TraceHeaders(["tracecontext", "b3"]).parent(metadata) == Parent(*IDS, True)
    assert TraceHeaders(["b3", "tracecontext"]).parent(metadata) == Parent(0, 0, False)
    assert TraceHeaders(["tracecontext", "b3"]).parent([("b3", "0"), ("traceparent", "nonsense")]) == Parent(0, 0, False)


def sampling(now=lambda: 0.0, **rules) -> Sampling:
    return Sampling(SamplingRules(**rules), now)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_traces_is_sampled_by_their_ids(ratio) -> None:
    """Every server of a trace decides alike, and so does OpenTelemetry's own sampler."""
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # noqa: PLC0415

    theirs, ours = TraceIdRatioBased(ratio), sampling(ratio=ratio)
    ids = [(0xABCD << 64 | number << 54) + 1 for number in range(1024)]
    chosen = [ours.chosen(trace, None) for trace in ids]
    assert chosen == [theirs.should_sample(None, trace, "").decision.is_sampled() for trace in ids]
    assert sum(chosen) == pytest.approx(1024 * ratio, abs=1)


@pytest.mark.parametrize("sampled", [True, False])
def test_the_clients_decision_is_followed_unless_switched_off(sampled) -> None:
    assert sampling(ratio=0.0).chosen(1, Parent(1, 1, sampled)) is sampled
    assert sampling(ratio=1.0).chosen(1, Parent(1, 1, sampled)) is sampled
    assert sampling(ratio=0.0, follow_caller=False).chosen(1, Parent(1, 1, sampled)) is False
    assert sampling(ratio=1.0, follow_caller=False).chosen(1, Parent(1, 1, sampled)) is True
    assert sampling(ratio=1.0).chosen(1, Parent(1, 1, None)) is True


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_faults_are_kept_and_slow_calls_if_configured(code) -> None:
    assert sampling().kept(code, 100.0) == ("error" if code in FAULTS else "")
    assert sampling(keep_slower=2.0).kept(code, 2.0) == ("error" if code in FAULTS else "slow")
    assert sampling(keep_slower=2.0, keep_codes=frozenset()).kept(code, 1.9) == ""
    assert not sampling(keep_codes=frozenset()).buffers
    assert sampling(keep_codes=frozenset(), keep_slower=1.0).buffers


def test_while_all_calls_fail_the_first_of_every_second_are_kept() -> None:
    time = [0.0]
    keeping = sampling(lambda: time[0], keep_per_second=2.0)

    def kept(calls: int) -> int:
        return sum(bool(keeping.kept(grpc.StatusCode.INTERNAL, 0.1)) for _ in range(calls))

    assert (kept(10), keeping.withheld) == (2, 8)
    time[0] = 0.5
    assert kept(10) == 1
    time[0] = 3600.0
    assert kept(10) == 2


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"ratio": 1.1}, {"keep_per_second": 0}, {"keep_slower": 0}])
def test_rules_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|above 0"):
        SamplingRules(**wrong)
