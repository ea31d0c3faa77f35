"""The queue in front of a slow disk or reader: bounded, counted, and emptied at the end."""

from __future__ import annotations

import threading

from aligner_svc.telemetry.writer_thread import WriterThread


class Gated:
    """A `write` that records what it gets and waits until `gate` is set."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.written: list[list[int]] = []

    def __call__(self, items: list[int]) -> None:
        self.entered.set()
        assert self.gate.wait(60)
        self.written.append(items)


def test_items_are_written_in_order_in_batches_and_once_more_at_the_end() -> None:
    write = Gated()
    writer = WriterThread("test", write, batch=2, max_items=5)
    assert writer.put(0)
    assert write.entered.wait(60)
    assert [writer.put(number) for number in range(1, 8)] == [True] * 5 + [False] * 2
    assert (writer.waiting, writer.refused, writer.dropped) == (5, 2, 2)
    write.gate.set()
    assert writer.close(60)
    assert write.written == [[0], [1, 2], [3, 4], [5], []]
    assert not writer.put(8)
    assert writer.dropped == 3


def test_a_thread_that_is_stuck_does_not_hold_up_its_close() -> None:
    write = Gated()
    writer = WriterThread("test", write, batch=2, max_items=5)
    writer.put(0)
    assert write.entered.wait(60)
    assert not writer.close(0.01)
    write.gate.set()
    assert writer.close(60)


def test_write_may_give_up_what_waits() -> None:
    write = Gated()

    def give_up(items: list[int]) -> None:
        write(items)
        writer.lost += writer.clear()

    writer = WriterThread("test", give_up, batch=1, max_items=5)
    for number in range(4):
        writer.put(number)
    write.gate.set()
    assert writer.close(60)
    assert writer.dropped + sum(map(len, write.written)) == 4


def test_an_empty_batch_is_written_every_so_often() -> None:
    idle = threading.Semaphore(0)
    writer = WriterThread("test", lambda items: idle.release() if not items else None, batch=1, max_items=5, every=0.01)
    assert idle.acquire(timeout=60)
    assert idle.acquire(timeout=60)
    assert writer.close(60)
