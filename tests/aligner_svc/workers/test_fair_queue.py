"""Clients get equal shares of the tokens, none starves, and idle clients are forgotten."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.workers.fair_queue import FairQueue, Room, TokenBudget

Item = tuple[str, int, int]
"""Client, serial number, size."""


def add(queue: FairQueue[Item], client: str, *sizes: int, start: int = 0) -> list[Item]:
    items = [(client, start + number, size) for number, size in enumerate(sizes)]
    for item in items:
        queue.add(item, client, item[2])
    return items


def drain(queue: FairQueue[Item], budget: int, max_items: int = 64, max_padding: float | None = None) -> list[list[Item]]:
    batches = []
    while len(queue):
        batches.append(queue.take(Room(budget, max_items, max_padding)))
        assert batches[-1], "items wait and none was taken"
    return batches


def tokens(items: list[Item]) -> int:
    return sum(item[2] for item in items)


def test_an_empty_queue_has_no_batch() -> None:
    assert FairQueue[Item](4).take(Room(10, 4)) == []


def test_one_client_is_served_in_its_order() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    items = add(queue, "a", *range(1, 21))
    assert [item for batch in drain(queue, 25) for item in batch] == items


def test_a_patient_item_lets_three_others_of_its_client_pass() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    patient = [("a", number, 1) for number in range(2)]
    for item in patient:
        queue.add(item, "a", 1, patient=True)
    others = add(queue, "a", *[1] * 5, start=2)
    assert [item for batch in drain(queue, 1) for item in batch] == [*others[:3], patient[0], *others[3:], patient[1]]
    assert queue.tokens == queue.clients == 0


def test_a_patient_item_waits_for_no_other_client() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    queue.add(("a", 0, 1), "a", 1, patient=True)
    others = add(queue, "b", 1, 1)
    assert [item for batch in drain(queue, 1) for item in batch] == [("a", 0, 1), *others]


def test_an_item_over_the_budget_runs_alone() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    big, small = add(queue, "a", 1_000, 1)
    assert drain(queue, 10) == [[big], [small]]


def test_an_item_over_the_budget_joins_no_batch() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    small, big = add(queue, "a", 1, 1_000)
    assert drain(queue, 10) == [[small], [big]]


def test_a_client_whose_item_does_not_fit_leads_the_next_batch() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    (first,) = add(queue, "a", 6)
    (too_big,) = add(queue, "b", 5)
    (fills,) = add(queue, "c", 4)
    (later,) = add(queue, "c", 4, start=1)
    assert drain(queue, 10) == [[first, fills], [too_big, later]]


def test_a_new_client_leads_the_next_batch_however_much_another_has_waiting() -> None:
    queue: FairQueue[Item] = FairQueue(2_000)
    add(queue, "flood", *[10] * 1_000)
    for batches in range(5):
        queue.take(Room(100, 64))
        (mine,) = add(queue, f"newcomer {batches}", 10)
        assert queue.take(Room(100, 64))[0] == mine


def test_level_clients_are_served_in_turn() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    for client in "cab":
        add(queue, client, 5, 5)
    assert [batch[0][0] for batch in drain(queue, 5)] == list("cabcab")


def test_of_level_clients_the_one_served_longest_ago_goes_first() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    add(queue, "a", 5, 5, 5)
    add(queue, "b", 10, 10)
    assert [queue.take(Room(5, 1))[0][0] for _ in range(4)] == list("abab")


def test_unused_time_earns_no_credit() -> None:
    queue: FairQueue[Item] = FairQueue(1_000)
    add(queue, "idle", 1)
    queue.take(Room(10, 1))
    add(queue, "busy", *[10] * 500)
    for _ in range(300):
        queue.take(Room(10, 1))
    add(queue, "idle", *[10] * 100)
    turns = [queue.take(Room(10, 1))[0][0] for _ in range(20)]
    assert 9 <= turns.count("idle") <= 11


def test_a_stream_of_new_clients_does_not_starve_one_that_was_served_before() -> None:
    queue: FairQueue[Item] = FairQueue(20)
    add(queue, "old", 10, 10)
    assert queue.take(Room(10, 1))[0][0] == "old"
    for name in range(1_000):
        add(queue, f"new {name}", 10)
        if queue.take(Room(10, 1))[0][0] == "old":
            return
    pytest.fail("1,000 new clients went first")


def test_idle_clients_are_forgotten() -> None:
    queue: FairQueue[Item] = FairQueue(20)
    for name in range(5_000):  # the queue is never empty
        add(queue, f"{name}", 1 + name % 50)
        if name >= 10:
            queue.take(Room(50, 1))
    assert queue.idle_clients < 2_000
    assert queue.clients == 10


def test_clients_that_left_unserved_are_forgotten() -> None:
    queue: FairQueue[Item] = FairQueue(20)
    for name in range(5_000):
        (item,) = add(queue, f"{name}", 1)
        queue.discard(item)
    assert queue.idle_clients < 100


def test_discarded_items_do_not_count() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    first, second, third = add(queue, "a", 1, 2, 3)
    queue.discard(second)
    queue.discard(second)
    assert (len(queue), queue.tokens, queue.clients, list(queue)) == (2, 4, 1, [first, third])
    assert drain(queue, 10) == [[first, third]]
    assert (len(queue), queue.tokens, queue.clients) == (0, 0, 0)


def test_items_of_similar_length_may_overtake_the_oldest() -> None:
    queue: FairQueue[Item] = FairQueue(100)
    long, short, also_long = add(queue, "a", 100, 10, 95)
    assert drain(queue, 1_000, max_padding=0.1) == [[long, also_long], [short]]


def test_the_search_behind_the_oldest_item_is_bounded() -> None:
    queue: FairQueue[Item] = FairQueue(1_000)
    long, *short, also_long = add(queue, "a", 100, *[10] * 65, 95)
    assert drain(queue, 100_000, max_items=1_000, max_padding=0.1) == [[long], short, [also_long]]


def test_an_item_of_unusual_length_is_not_overtaken_for_ever() -> None:
    queue: FairQueue[Item] = FairQueue(1_000)
    add(queue, "b", 10)  # leads every batch: after it, "a" is level with it again
    odd, *_ = add(queue, "a", 100, 10, 10)
    for turn in range(200):
        if odd in queue.take(Room(20, 2, 0.1)):
            return
        add(queue, "a", 10, start=10 + turn)
        add(queue, "b", 10, start=10 + turn)
    pytest.fail("overtaken 200 times")


@given(
    waiting=st.lists(st.lists(st.integers(1, 60), min_size=5, max_size=60), min_size=2, max_size=5),
    budget=st.integers(1, 100),
    max_items=st.integers(1, 12),
)
def test_shares_of_waiting_clients_differ_by_at_most_a_batch_and_an_item_each(
    waiting: list[list[int]], budget: int, max_items: int
) -> None:
    queue: FairQueue[Item] = FairQueue(1_000)
    left = {str(client): add(queue, str(client), *sizes) for client, sizes in enumerate(waiting)}
    largest = max(size for sizes in waiting for size in sizes)
    served: dict[str, int] = defaultdict(int)
    while all(left.values()):
        batch = queue.take(Room(budget, max_items))
        for client, number, size in batch:
            assert left[client].pop(0) == (client, number, size), "not in the client's order"
            served[client] += size
        if all(left.values()):
            shares = [served[client] for client in left]
            assert max(shares) - min(shares) <= budget + 2 * largest


@given(
    waiting=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 500)), min_size=1, max_size=150),
    budget=st.integers(1, 4_000),
    max_items=st.integers(1, 40),
    max_padding=st.sampled_from([None, 0.0, 0.1, 0.5]),
)
def test_batches_stay_within_their_bounds_and_lose_no_item(
    waiting: list[tuple[str, int]], budget: int, max_items: int, max_padding: float | None
) -> None:
    queue: FairQueue[Item] = FairQueue(200)
    everything = [add(queue, client, size, start=number)[0] for number, (client, size) in enumerate(waiting)]
    batches = drain(queue, budget, max_items, max_padding)
    assert sorted(item for batch in batches for item in batch) == sorted(everything)
    for batch in batches:
        computed = tokens(batch) if max_padding is None else max(item[2] for item in batch) * len(batch)
        assert len(batch) <= max_items
        assert len(batch) == 1 or computed <= budget
        assert computed - tokens(batch) <= (max_padding or 0) * computed


def test_a_budget_is_halved_at_once_and_recovers_by_steps() -> None:
    budget = TokenBudget(800)
    budget.record_out_of_memory(600)
    assert budget.current == 300
    for _ in range(63):
        budget.record_success()
    assert budget.current == 300
    budget.record_success()
    assert budget.current == 400
    for _ in range(10 * 64):
        budget.record_success()
    assert budget.current == 800


def test_a_failure_postpones_the_next_step() -> None:
    budget = TokenBudget(800)
    for _ in range(63):
        budget.record_success()
    budget.record_out_of_memory(800)
    budget.record_success()
    assert budget.current == 400


def test_a_budget_is_never_0_and_an_item_over_it_does_not_change_it() -> None:
    budget = TokenBudget(8)
    budget.record_out_of_memory(1_000)
    assert budget.current == 8
    for _ in range(5):
        budget.record_out_of_memory(1)
    assert budget.current == 1
