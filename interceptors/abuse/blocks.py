"""Peers that are kept out for a time, longer with every repetition, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class Block:
    """One peer's time out. `label`: what the audit log calls the peer."""

    label: str
    level: int
    """How many there were before it, as far as that makes it longer."""
    seconds: float
    until: float
    refused: int = 0
    """Calls that it has cost the peer."""


_Queue = OrderedDict[bytes, Block]


class Blocks:
    """The first block lasts `first` seconds; each that begins within `memory` seconds after one twice as long, up to `longest`.

    All blocks of a level are equally long, so in each level the one that began first ends first: no clock has to be set and
    nothing has to be sorted. Each level has an equal share of `entries` and pushes out its own alone: whoever comes with many
    addresses can make room among first blocks, never among those who were blocked before.
    """

    def __init__(self, first: float, longest: float, memory: float, entries: int) -> None:
        if first <= 0 or longest < first or memory < 0:
            raise ValueError("a block lasts some time, and the longest not less than the first")
        self._longest = longest
        self._lengths = [first * 2**level for level in range(math.ceil(math.log2(longest / first)) + 1)]
        self._lengths[-1] = longest
        if entries < len(self._lengths):
            raise ValueError(f"blocks from {first:g} to {longest:g} seconds need {len(self._lengths)} entries or more")
        self._memory = memory
        self._most = entries // len(self._lengths)
        self._active: list[_Queue] = [OrderedDict() for _ in self._lengths]
        self._past: list[_Queue] = [OrderedDict() for _ in self._lengths]
        self._dropped: list[Block] = []
        self._soonest = math.inf

    def __len__(self) -> int:
        """Peers that are blocked or remembered."""
        return sum(map(len, self._active)) + sum(map(len, self._past))

    def find(self, peer: bytes, now: float) -> Block | None:
        """The block it is under."""
        if self._soonest == math.inf:
            return None
        for queue in self._active:
            block = queue.get(peer)
            if block is not None:
                return block if block.until > now else None
        return None

    def begin(self, peer: bytes, label: str, now: float) -> Block:
        """A peer that is not blocked is now. Ask `ended` first: a block is remembered from then on."""
        level = self._forget(peer, now)
        self._drop_one(level)
        seconds = self._lengths[level]
        block = self._active[level][peer] = Block(label, level, seconds, now + seconds)
        self._soonest = min(self._soonest, block.until)
        return block

    def ended(self, now: float) -> list[Block]:
        """Those that have ended since this was asked last."""
        if now < self._soonest and not self._dropped:
            return []
        ended, self._dropped = self._dropped, []
        for active, past in zip(self._active, self._past, strict=True):
            while active and (block := next(iter(active.values()))).until <= now:
                peer, _ = active.popitem(last=False)
                past[peer] = block
                ended.append(block)
            while past and next(iter(past.values())).until + self._memory <= now:
                past.popitem(last=False)
        self._soonest = min((next(iter(active.values())).until for active in self._active if active), default=math.inf)
        return ended

    def _forget(self, peer: bytes, now: float) -> int:
        """Take it out wherever it is remembered; the level of its next block."""
        for past in self._past:
            block = past.pop(peer, None)
            if block is not None:
                return min(block.level + 1, len(self._lengths) - 1) if block.until + self._memory > now else 0
        return 0

    def _drop_one(self, level: int) -> None:
        active, past = self._active[level], self._past[level]
        if len(active) + len(past) < self._most:
            return
        if past:
            past.popitem(last=False)
        else:
            self._dropped.append(active.popitem(last=False)[1])
