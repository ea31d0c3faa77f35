"""Counts per peer over a sliding window, in bounded memory.

A window is a few slices of time, and each slice holds at most its share of the entries: a Misra-Gries summary
(https://doi.org/10.1016/0167-6423(82)90012-0). In a full slice a new peer lowers the counts of all others instead of evicting
one of them, so the effect of a flood of addresses is bounded on both sides:

- A count is never above what happened within the window: no peer is blocked for what others did.
- It is below by at most (events of the slice) / (entries of the slice) for each slice: a peer that goes on is still found,
  that many events later. An LRU of the same size would lose it to any flood faster than the peer.
"""

from __future__ import annotations

SLICES = 4
"""A count covers between 3/4 of the window and all of it. More slices make that more even, and hold fewer peers each."""


class CountWindow:
    """Events per peer within `seconds`, of at most `entries` peers. Counts err downwards only."""

    def __init__(self, seconds: float, entries: int) -> None:
        if seconds <= 0 or entries < SLICES:
            raise ValueError(f"a window has to be longer than 0 seconds and have {SLICES} entries or more")
        self._length = seconds / SLICES
        self._max_entries = entries // SLICES
        self._slices: list[dict[bytes, int]] = [{} for _ in range(SLICES)]
        self._turn = 0

    def __len__(self) -> int:
        """Entries in use; a peer has one in every slice in which it had events."""
        return sum(map(len, self._slices))

    def add(self, peer: bytes, now: float, weight: int = 1) -> int:
        """Count `weight` events at `now` (seconds, never less than before); the new count."""
        current = self._at(now)
        if peer in current or len(current) < self._max_entries:
            current[peer] = current.get(peer, 0) + weight
        else:
            self._make_room(peer, weight)
        return sum(part.get(peer, 0) for part in self._slices)

    def forget(self, peer: bytes) -> None:
        """Reset the count of this peer."""
        for part in self._slices:
            part.pop(peer, None)

    def _at(self, now: float) -> dict[bytes, int]:
        turn = int(now / self._length)
        for passed in range(max(self._turn, turn - SLICES) + 1, turn + 1):
            self._slices[passed % SLICES] = {}
        self._turn = max(self._turn, turn)
        return self._slices[self._turn % SLICES]

    def _make_room(self, peer: bytes, weight: int) -> None:
        """Lower all counts, the new one too, by the lowest of them, which frees an entry.

        This passes over the whole slice and takes an event from each entry, so it happens at most once in as many events as
        there are entries.
        """
        at = self._turn % SLICES
        full = self._slices[at]
        least = min(full.values())
        less = min(weight, least)
        self._slices[at] = kept = {other: count - less for other, count in full.items() if count > less}
        if weight > less:
            kept[peer] = weight - less
