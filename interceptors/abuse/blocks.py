"""Peers that are blocked for a time, longer with every repetition, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Block:
    """One block of one peer. `label`: the peer's name in the audit log."""

    label: str
    level: int
    """Earlier blocks, as far as they make this one longer."""
    seconds: float
    until: float
    refused: int = 0
    """Calls."""
    adopted: bool = False
    """Whether another server began it."""


class SharedBlock(NamedTuple):
    """A block as other servers learn of it. `seconds`: that are left."""

    peer: bytes
    label: str
    level: int
    seconds: float


_Queue = OrderedDict[bytes, Block]


class Blocks:
    """The first block lasts `first` seconds; one within `memory` seconds after another twice as long, up to `maximum`.

    All blocks of a level are equally long, so in each level the one that began first ends first: nothing has to be sorted or
    timed. Each level has an equal share of `entries` and evicts only its own: an attacker with many addresses can evict first
    blocks, never those of peers that were blocked before.
    """

    def __init__(self, first: float, maximum: float, memory: float, entries: int) -> None:
        if first <= 0 or maximum < first or memory < 0:
            raise ValueError("the first block has to be longer than 0 seconds, and the longest not shorter than the first")
        self._lengths = [first * 2**level for level in range(math.ceil(math.log2(maximum / first)) + 1)]
        self._lengths[-1] = maximum
        if entries < len(self._lengths):
            raise ValueError(f"blocks from {first:g} to {maximum:g} seconds need {len(self._lengths)} entries or more")
        self._memory = memory
        self._max_entries = entries // len(self._lengths)
        self._active: list[_Queue] = [OrderedDict() for _ in self._lengths]
        self._past: list[_Queue] = [OrderedDict() for _ in self._lengths]
        self._evicted: list[Block] = []
        self._next_end = math.inf

    def __len__(self) -> int:
        """Peers that are blocked or remembered."""
        return sum(map(len, self._active)) + sum(map(len, self._past))

    def find(self, peer: bytes, now: float) -> Block | None:
        """The peer's block in force."""
        if self._next_end == math.inf:
            return None
        for queue in self._active:
            block = queue.get(peer)
            if block is not None and block.until > now:
                return block
        return None

    def begin(self, peer: bytes, label: str, now: float) -> Block:
        """Block a peer that is not blocked. Call `pop_ended` first, which moves ended blocks to those that are remembered."""
        level = self._forget(peer, now)
        return self._add(peer, label, level, self._lengths[level], now)

    def adopt(self, shared: SharedBlock, now: float) -> None:
        """Block a peer that another server has blocked, as long as that does; one that is blocked here stays so.

        It is shorter than others of its level, so `pop_ended` may return it late; `find` does not.
        """
        if shared.seconds > 0 and self.find(shared.peer, now) is None:
            self._forget(shared.peer, now)
            level = min(max(shared.level, 0), len(self._lengths) - 1)
            self._add(shared.peer, shared.label, level, min(shared.seconds, self._lengths[level]), now).adopted = True

    def _add(self, peer: bytes, label: str, level: int, seconds: float, now: float) -> Block:
        self._make_room(level)
        block = self._active[level][peer] = Block(label, level, seconds, now + seconds)
        self._next_end = min(self._next_end, block.until)
        return block

    def pop_ended(self, now: float) -> list[Block]:
        """Those that have ended since the last call, each once."""
        if now < self._next_end and not self._evicted:
            return []
        ended, self._evicted = self._evicted, []
        for active, past in zip(self._active, self._past, strict=True):
            while active and (block := next(iter(active.values()))).until <= now:
                peer, _ = active.popitem(last=False)
                past[peer] = block
                ended.append(block)
            while past and next(iter(past.values())).until + self._memory <= now:
                past.popitem(last=False)
        self._next_end = min((next(iter(active.values())).until for active in self._active if active), default=math.inf)
        return ended

    def _forget(self, peer: bytes, now: float) -> int:
        """Remove the peer's block, which has ended; the level of its next one."""
        for blocks in (*self._active, *self._past):
            block = blocks.pop(peer, None)
            if block is not None:
                return min(block.level + 1, len(self._lengths) - 1) if block.until + self._memory > now else 0
        return 0

    def _make_room(self, level: int) -> None:
        active, past = self._active[level], self._past[level]
        if len(active) + len(past) < self._max_entries:
            return
        if past:
            past.popitem(last=False)
        else:
            self._evicted.append(active.popitem(last=False)[1])
