"""Counts per peer over a sliding window, in bounded memory.

A window is a few slices of time, and each slice holds at most its share of the entries: a Misra-Gries summary
(https://doi.org/10.1016/0167-6423(82)90012-0). Where a slice is full, a new peer lowers the counts of all others instead of
pushing one of them out, so what a flood of addresses can do is bounded on both sides:

- A count is never more than what happened within the window: nobody is blocked for what others did.
- It is less by at most (events of the slice) / (entries of the slice) for each slice: a peer that goes on is still found,
  that many events later. An LRU of the same size would lose it to any flood that comes round faster than the peer does.
"""

from __future__ import annotations

SLICES = 4
"""A count looks back between 3/4 of the window and all of it. More slices look back more evenly and hold fewer peers each."""


class CountWindow:
    """What every peer did within `seconds`: at most `entries` peers, in numbers that only err downwards."""

    def __init__(self, seconds: float, entries: int) -> None:
        if seconds <= 0 or entries < SLICES:
            raise ValueError(f"a window needs time and at least {SLICES} entries")
        self._length = seconds / SLICES
        self._most = entries // SLICES
        self._slices: list[dict[bytes, int]] = [{} for _ in range(SLICES)]
        self._turn = 0

    def __len__(self) -> int:
        """Entries in use; a peer has one in every slice in which it did something."""
        return sum(map(len, self._slices))

    def add(self, peer: bytes, now: float, weight: int = 1) -> int:
        """Count `weight` events more, all at `now` (seconds, never less than before); the count with them."""
        current = self._at(now)
        if peer in current or len(current) < self._most:
            current[peer] = current.get(peer, 0) + weight
        else:
            self._make_room(peer, weight)
        return sum(part.get(peer, 0) for part in self._slices)

    def forget(self, peer: bytes) -> None:
        """Begin anew with this one."""
        for part in self._slices:
            part.pop(peer, None)

    def _at(self, now: float) -> dict[bytes, int]:
        turn = int(now / self._length)
        for passed in range(max(self._turn, turn - SLICES) + 1, turn + 1):
            self._slices[passed % SLICES] = {}
        self._turn = max(self._turn, turn)
        return self._slices[self._turn % SLICES]

    def _make_room(self, peer: bytes, weight: int) -> None:
        """Lower everybody, the new one too, by as much as empties a place.

        It costs a pass over the slice and takes an event from each of its entries, so it happens at most once in as many
        events as there are entries.
        """
        at = self._turn % SLICES
        full = self._slices[at]
        least = min(full.values())
        less = min(weight, least)
        self._slices[at] = kept = {other: count - less for other, count in full.items() if count > less}
        if weight > less:
            kept[peer] = weight - less
