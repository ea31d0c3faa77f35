"""The adaptive limit on a simulated server with arrivals, slots and work of known size."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

import pytest

from interceptors.overload.limit import AdaptiveLimit, LimitRules

Work = Callable[[random.Random], float]


@dataclass
class Served:
    """One call: when it came, when its work began and when it ended; seconds."""

    came: float
    began: float
    ended: float

    @property
    def waited(self) -> float:
        return self.began - self.came


@dataclass
class Server:
    """Slots that serve first come, first served; calls above the limit are refused."""

    limit: AdaptiveLimit
    work: Work
    slots: int
    resized: Sequence[tuple[float, int]] = ()
    """Seconds at which the number of slots changes, and to what."""
    timeout: float = float("inf")
    """Seconds after which a caller no longer waits; work that has begun by then is wasted."""
    served: list[Served] = field(default_factory=list)
    limits: list[tuple[float, float]] = field(default_factory=list)

    def run(self, rate: Callable[[float], float], seconds: float, seed: int = 1) -> Server:
        """`rate`: arrivals a second at a given second."""
        chance = random.Random(seed)
        events: list[tuple[float, int, tuple[float, float] | None]] = [(0.0, 0, None)]
        waiting: deque[tuple[float, float]] = deque()
        count = inside = busy = 0
        while events[0][0] < seconds:
            now, _, ends = heapq.heappop(events)
            slots = next((size for at, size in reversed(self.resized) if now >= at), self.slots)
            if ends is None:
                count += 1
                heapq.heappush(events, (now + chance.expovariate(rate(now)), count, None))
                if inside < self.limit.calls:
                    inside += 1
                    waiting.append((now, self.work(chance)))
            else:
                came, began = ends
                busy -= 1
                in_time = now - came <= self.timeout
                worked = now - began if in_time else None
                self.limit.observe(began - came if in_time else now - came, worked, since=came, now=now, at_work=inside)
                inside -= 1
                if in_time:
                    self.served.append(Served(came, began, now))
                self.limits.append((now, self.limit.calls))
            while waiting and busy < slots:
                came, takes = waiting.popleft()
                if now - came > self.timeout:
                    self.limit.observe(now - came, None, since=came, now=now, at_work=inside)
                    inside -= 1
                    continue
                busy += 1
                count += 1
                heapq.heappush(events, (now + takes, count, (came, now)))
        return self

    def goodput(self, begin: float, end: float) -> float:
        """Seconds of useful work a second: the average number of slots that were busy with calls answered in time."""
        return sum(one.ended - one.began for one in self.served if begin <= one.ended < end) / (end - begin)

    def p95(self, begin: float) -> float:
        """Seconds, waiting and work, of those that ended after `begin`."""
        took = sorted(one.ended - one.came for one in self.served if one.ended >= begin)
        return took[int(0.95 * len(took))]

    def mean_limit(self, begin: float, end: float) -> float:
        return mean(limit for at, limit in self.limits if begin <= at < end)


def clips(chance: random.Random) -> float:
    return chance.uniform(0.05, 0.15)


def recordings(chance: random.Random) -> float:
    return chance.uniform(3.0, 7.0)


def both(chance: random.Random) -> float:
    return 5.0 if chance.random() < 0.1 else 0.1


SIZES = {"clips": (clips, 0.1), "recordings": (recordings, 5.0), "both": (both, 0.59)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("slots", [1, 2, 8, 32])
def test_goodput_at_ten_times_the_capacity_is_that_at_capacity(size, slots) -> None:
    work, takes = SIZES[size]
    capacity, seconds = slots / takes, 4000 * takes / slots
    rules = LimitRules(lowest=slots + 2, initial=slots * 2 + 1)
    fits = Server(AdaptiveLimit(rules), work, slots).run(lambda _: capacity, seconds)
    once = fits.goodput(seconds / 4, seconds)
    for times in (2, 5, 10):
        asked = Server(AdaptiveLimit(rules), work, slots).run(lambda _, times=times: capacity * times, seconds)
        assert asked.goodput(seconds / 4, seconds) >= 0.9 * once
        assert asked.goodput(seconds / 4, seconds) >= (0.8 if times == 2 else 0.9) * slots
        assert asked.p95(seconds / 4) <= 2 * fits.p95(seconds / 4)


def test_without_a_limit_the_wait_grows_without_bound() -> None:
    """The simulation shows the problem that the limit solves."""
    boundless = AdaptiveLimit(LimitRules(lowest=10**6, initial=10**6, highest=10**6))
    asked = Server(boundless, clips, 2).run(lambda _: 40.0, 100.0)
    assert asked.p95(50.0) > 20.0


def test_waits_settle_near_the_accepted_wait() -> None:
    for work, takes in ((clips, 0.1), (recordings, 5.0)):
        limit = AdaptiveLimit(LimitRules(lowest=2, initial=100))
        asked = Server(limit, work, 4).run(lambda _, takes=takes: 40 / takes, 2000 * takes)
        waits = [one.waited for one in asked.served[len(asked.served) // 2 :]]
        assert 0.5 * limit.accepted_wait <= mean(waits) <= 2 * limit.accepted_wait
        assert limit.accepted_wait == pytest.approx(max(0.25, takes), rel=0.3)


def test_it_follows_when_capacity_halves_and_doubles() -> None:
    asked = Server(AdaptiveLimit(LimitRules(lowest=2)), clips, 8, resized=((300.0, 4), (600.0, 16))).run(lambda _: 400.0, 900.0)
    before, halved, doubled = (asked.mean_limit(begin + 50, begin + 300) for begin in (0.0, 300.0, 600.0))
    assert halved == pytest.approx(before / 2, rel=0.35)
    assert doubled == pytest.approx(before * 2, rel=0.35)
    for begin, slots in ((0.0, 8), (300.0, 4), (600.0, 16)):
        assert asked.goodput(begin + 50, begin + 300) >= 0.95 * slots
    waits = [one.waited for one in asked.served if 310 <= one.came < 590]
    assert sorted(waits)[int(0.95 * len(waits))] <= 4 * 0.25


def test_it_recovers_from_a_stall() -> None:
    """Ten seconds with one slot instead of eight: fewer calls are admitted, and ten seconds later as many as before."""
    stalled = Server(AdaptiveLimit(LimitRules(lowest=2)), clips, 8, resized=((100.0, 1), (110.0, 8))).run(lambda _: 800.0, 300.0)
    assert min(limit for at, limit in stalled.limits if 100 <= at < 112) < stalled.mean_limit(50, 100) / 2
    assert stalled.mean_limit(120, 300) == pytest.approx(stalled.mean_limit(50, 100), rel=0.2)
    assert stalled.goodput(120, 300) >= 0.95 * 8


def fresh(calls: float = 20.0) -> AdaptiveLimit:
    """A limit without observations."""
    return AdaptiveLimit(LimitRules(lowest=2, initial=int(calls), highest=40))


def observe(limit: AdaptiveLimit, waits: Sequence[float], now: float, worked: float = 1.0, at_work: int = 0) -> None:
    for wait in waits:
        limit.observe(wait, worked, since=now, now=now + 0.01, at_work=at_work)


def test_one_outlier_changes_nothing() -> None:
    limit = fresh()
    observe(limit, [0.1] * 9 + [3600.0], now=0.0)
    assert limit.calls == 20.0


def test_one_bad_window_halves_the_limit_at_most_and_the_next_ones_restore_it() -> None:
    limit = fresh()
    observe(limit, [3600.0] * 10, now=0.0)
    assert limit.calls == 10.0
    for second in range(1, 20):
        observe(limit, [0.0] * 20, now=float(second), at_work=int(limit.calls))
    assert limit.calls >= 20.0


def test_it_stays_between_its_bounds() -> None:
    limit = fresh()
    for second in range(50):
        observe(limit, [3600.0] * 10, now=float(second))
    assert limit.calls == 2.0
    for second in range(50, 150):
        observe(limit, [0.0] * 20, now=float(second), at_work=40)
    assert limit.calls == 40.0


def test_a_limit_that_is_not_nearly_used_does_not_grow() -> None:
    limit = fresh()
    for second in range(50):
        observe(limit, [0.0] * 10, now=float(second), at_work=9)
    assert limit.calls == 20.0
    observe(limit, [0.0] * 10, now=100.0, at_work=10)
    assert limit.calls > 20.0


def test_calls_admitted_under_another_limit_do_not_count() -> None:
    """One burst shrinks the limit once, not once for every window of its calls."""
    limit = fresh()
    observe(limit, [3600.0] * 10, now=0.0)
    for _ in range(100):
        limit.observe(3600.0, 1.0, since=0.0, now=5.0, at_work=0)
    assert limit.calls == 10.0


def test_a_wait_as_long_as_the_work_is_accepted_and_twice_as_long_is_not() -> None:
    limit = fresh()
    observe(limit, [60.0] * 10, now=0.0, worked=60.0)
    assert limit.calls == 20.0
    observe(limit, [120.0] * 10, now=10.0, worked=60.0)
    assert limit.calls == 10.0


def test_calls_whose_deadline_passed_count_as_waits() -> None:
    limit = fresh()
    observe(limit, [0.2] * 10, now=0.0)
    for _ in range(10):
        limit.observe(5.0, None, since=10.0, now=15.0, at_work=0)
    assert limit.calls == 10.0
    assert limit.typical_work == 1.0


def test_it_does_not_grow_by_calls_that_miss_their_deadline() -> None:
    """Every deadline is shorter than the accepted wait: calls that are served in time have all waited for less."""

    def goodput(limit: AdaptiveLimit) -> float:
        impatient = Server(limit, lambda chance: chance.uniform(0.9, 1.1), 4, timeout=1.6)
        return impatient.run(lambda _: 40.0, 600.0).goodput(100, 600)

    adaptive = AdaptiveLimit(LimitRules(lowest=2))
    assert goodput(adaptive) >= 0.5 * 4
    assert adaptive.calls < 12
    assert goodput(AdaptiveLimit(LimitRules(lowest=100, initial=100, highest=100))) < 0.1 * 4


def test_few_calls_are_judged_after_a_while() -> None:
    limit = fresh()
    for now in (0.0, 6.0):
        limit.observe(100.0, 1.0, since=now, now=now, at_work=0)
    assert limit.calls == 20.0
    limit.observe(100.0, 1.0, since=12.0, now=12.0, at_work=0)
    assert limit.calls == 10.0


@pytest.mark.parametrize(
    "rules",
    [{"lowest": 0}, {"lowest": 9, "initial": 8}, {"initial": 300}, {"target_wait": 0.0}, {"tolerance": -1.0}, {"samples": 0}],
)
def test_invalid_rules_are_refused(rules) -> None:
    with pytest.raises(ValueError, match=r"lowest|above 0"):
        LimitRules(**rules)
