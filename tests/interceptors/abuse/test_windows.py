"""Windows, blocks and networks: what they count, what they forget, and that their memory is bounded."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interceptors.abuse.blocks import Blocks
from interceptors.abuse.peers import Networks
from interceptors.abuse.windows import SLICES, CountWindow

MINUTE = 60.0


def name(number: int) -> bytes:
    return number.to_bytes(4)


events = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 7), st.integers(1, 12)), max_size=120)


@given(events)
def test_with_room_a_count_covers_three_quarters_of_the_window_or_more(steps) -> None:
    window, now, log = CountWindow(MINUTE, 1000), 1e6, []
    for passed, peer, weight in steps:
        now += passed
        log.append((now, peer, weight))
        count = window.add(name(peer), now, weight)
        mine = [(at, w) for at, p, w in log if p == peer]
        assert sum(w for at, w in mine if at > now - MINUTE * (SLICES - 1) / SLICES) <= count
        assert count <= sum(w for at, w in mine if at > now - MINUTE)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=400))
def test_without_room_a_count_is_never_too_high_and_too_low_by_the_bound(steps) -> None:
    each = 5
    window, real, total = CountWindow(MINUTE, each * SLICES), Counter[int](), 0
    for peer, weight in steps:
        count = window.add(name(peer), 1.0, weight)
        real[peer] += weight
        total += weight
        assert len(window) <= each
        assert count <= real[peer]
        assert count >= real[peer] - total / (each + 1)


def test_a_flood_hides_no_offender_and_blocks_no_one_else() -> None:
    """200,000 addresses within one slice of 1,000 entries; one peer fails once in every 400 calls, another never again."""
    window = CountWindow(MINUTE, 1000 * SLICES)
    guest = window.add(b"guest", 0.0)
    maximum = 0
    for number in range(200_000):
        maximum = max(maximum, window.add(name(number), number * 1e-5))
        if number % 400 == 0:
            offender = window.add(b"offender", number * 1e-5)
    assert (guest, maximum) == (1, 1)
    assert offender > 500 - 200_000 / 1000 - 1  # of 500
    assert window.add(b"guest", 2.1) <= 2
    assert len(window) <= 1000 * SLICES


def test_a_forgotten_peer_starts_at_zero() -> None:
    window = CountWindow(MINUTE, 100)
    for now in (0.0, 20.0, 40.0):
        window.add(b"a", now, 5)
    window.forget(b"a")
    assert window.add(b"a", 41.0) == 1


def test_the_window_is_empty_after_a_long_pause() -> None:
    window = CountWindow(MINUTE, 100)
    assert window.add(b"a", 5.0, 5) == 5
    assert window.add(b"a", 1e9) == 1
    assert len(window) == 1


def test_a_clock_that_stands_still_or_steps_back_a_slice_is_harmless() -> None:
    window = CountWindow(MINUTE, 100)
    window.add(b"a", 100.0)
    assert window.add(b"a", 80.0) == 2


@pytest.mark.parametrize(("seconds", "entries"), [(0, 100), (-1, 100), (60, SLICES - 1)])
def test_a_window_without_time_or_room_is_refused(seconds, entries) -> None:
    with pytest.raises(ValueError, match="window"):
        CountWindow(seconds, entries)


def blocks(entries: int = 800) -> Blocks:
    return Blocks(30.0, 3600.0, 3600.0, entries)


def test_blocks_double_up_to_the_maximum() -> None:
    book, now, lengths = blocks(), 0.0, []
    for _ in range(10):
        book.pop_ended(now)
        block = book.begin(b"a", "a", now)
        lengths.append(block.seconds)
        assert book.find(b"a", block.until - 0.001) is block
        assert book.find(b"a", block.until) is None
        now = block.until + 1
    assert lengths == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize(("pause", "seconds"), [(3599.0, 60.0), (3600.0, 30.0)])
def test_a_block_is_remembered_for_its_time(pause, seconds) -> None:
    book = blocks()
    book.begin(b"a", "a", 0.0)
    book.pop_ended(30.0)
    assert book.begin(b"a", "a", 30.0 + pause).seconds == seconds


def test_each_end_is_reported_once() -> None:
    book = blocks()
    book.begin(b"a", "a", 0.0)
    book.begin(b"b", "b", 1.0)
    assert book.pop_ended(29.9) == []
    assert [block.label for block in book.pop_ended(30.5)] == ["a"]
    assert [block.label for block in book.pop_ended(1e6)] == ["b"]
    assert book.pop_ended(2e6) == []
    assert book.find(b"b", 1e6) is None


def test_a_peer_without_a_block_is_not_blocked() -> None:
    book = blocks()
    assert book.find(b"a", 0.0) is None
    book.begin(b"a", "a", 0.0)
    assert book.find(b"b", 0.0) is None


def test_first_blocks_evict_only_first_blocks() -> None:
    book = blocks(800)  # 100 of each of the 8 lengths
    book.begin(b"repeats", "repeats", 0.0)
    book.pop_ended(30.0)
    second = book.begin(b"repeats", "repeats", 31.0)
    for number in range(100_000):
        book.begin(name(number), str(number), 32.0)
    assert len(book) <= 800
    assert book.find(b"repeats", 32.0) is second
    assert book.find(name(99_999), 32.0) is not None
    popped = book.pop_ended(32.0)
    assert [block.label for block in popped[:2]] == ["0", "1"]  # evicted: their block is over
    assert len(popped) == 100_000 - 100
    book.pop_ended(92.0)
    assert book.begin(b"repeats", "repeats", 93.0).seconds == 120


def test_past_blocks_are_evicted_before_active_ones() -> None:
    book = blocks(16)  # 2 of each length
    book.begin(b"old", "old", 0.0)
    book.pop_ended(30.0)
    running = book.begin(b"a", "a", 31.0)
    book.begin(b"b", "b", 32.0)
    assert book.find(b"a", 33.0) is running
    assert book.begin(b"old", "old", 33.0).level == 0


@given(st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 30)), max_size=150))
def test_blocks_keep_their_invariants(steps) -> None:
    book, now, begun, popped = blocks(40), 0.0, 0, 0
    for passed, number in steps:
        now += passed
        popped += len(book.pop_ended(now))
        if book.find(name(number), now) is None:
            block = book.begin(name(number), "", now)
            begun += 1
            assert book.find(name(number), now) is block
            assert block.seconds == min(30 * 2**block.level, 3600)
        assert len(book) <= 40
    assert popped + len(book.pop_ended(now + 1e9)) == begun


@pytest.mark.parametrize("wrong", [(0, 1, 1, 99), (2, 1, 1, 99), (1, 2, -1, 99), (1, 1024, 1, 10)])
def test_invalid_blocks_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="block"):
        Blocks(*wrong)


def keys(networks: Networks, *addresses: str) -> list[bytes | None]:
    return [networks.key(f"ipv6:[{address}]:1" if ":" in address else f"ipv4:{address}:1") for address in addresses]


def test_an_ipv6_network_and_an_ipv4_address_are_one_peer() -> None:
    networks = Networks((), 32, 64)
    a, b, c, d = keys(networks, "2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "192.0.2.1")
    assert a == b
    assert len({a, c, d}) == 3
    assert keys(networks, "::ffff:192.0.2.1") == [d]


def test_prefixes_may_end_within_a_byte() -> None:
    a, b, c = keys(Networks((), 23, 64), "192.0.2.1", "192.0.3.1", "192.0.4.1")
    assert a == b
    assert a != c
    a, b, c = keys(Networks((), 32, 57), "2001:db8:0:1::", "2001:db8:0:7f::", "2001:db8:0:80::")
    assert a == b
    assert a != c


def test_trusted_networks_have_no_key() -> None:
    trusted = [ip_network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "::1/128", "2001:db8::/33", "::ffff:198.51.100.0/120")]
    networks = Networks(trusted, 32, 64)
    inside = keys(networks, "10.255.0.1", "127.0.0.1", "::1", "2001:db8:7fff::1", "::ffff:10.0.0.1", "198.51.100.7")
    assert inside == [None] * 6
    outside = keys(networks, "11.0.0.1", "::2", "2001:db8:8000::1", "198.51.101.7")
    assert None not in outside


@pytest.mark.parametrize(("ipv4", "ipv6"), [(0, 64), (33, 64), (32, 32), (32, 129)])
def test_prefixes_out_of_range(ipv4, ipv6) -> None:
    with pytest.raises(ValueError, match="bits"):
        Networks((), ipv4, ipv6)
