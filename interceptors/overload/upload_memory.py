"""How many bytes of uploads the server keeps at a time, and whose. Senders beyond their share are held by flow control.

Dynamic thresholds, as switches share their buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998): a
caller may hold as much as is free. Alone it gets half of the shared bytes, and the other half stays for those who come. What a
caller holds is never taken away from it, and no other waits for it to be given up.

Uploads that all wait for each other's bytes would wait for ever, so there is a reserve as large as the largest upload: one upload
at a time may exceed its caller's share, and can be completed whatever the others do. Callers have it in turn, and of those that
wait the one that holds least.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Held:
    """What one upload holds, in bytes."""

    owner: str
    size: int = 0


@dataclass(slots=True)
class UploadMemory:
    """`shared` bytes by shares, and `reserve` for one upload. Memory: one entry for each upload that holds or waits."""

    shared: int
    reserve: int
    _used: int = 0
    """Of the shared bytes."""
    _by_owner: dict[str, int] = field(default_factory=dict)
    """The same by caller."""
    _first: Held | None = None
    """The upload that has the reserve. It counts against neither of them."""
    _last: str = ""
    """The caller that had it last."""
    _waiting: dict[str, deque[tuple[Held, int, asyncio.Future[None]]]] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Bytes held in all."""
        return self._used + (self._first.size if self._first is not None else 0)

    @property
    def waiting(self) -> int:
        """Uploads that are held back."""
        return sum(map(len, self._waiting.values()))

    async def take(self, held: Held, size: int) -> None:
        """Add `size` bytes to an upload, once there is room for them. An upload waits with one `take` at a time."""
        if (held is self._first or held.owner not in self._waiting) and self._take_now(held, size):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = held, size, granted
        queue = self._waiting.setdefault(held.owner, deque())
        queue.append(entry)
        self._serve()
        try:
            await granted
        except BaseException:
            if entry in queue:
                queue.remove(entry)
                if not queue:
                    del self._waiting[held.owner]
            raise

    def release(self, held: Held) -> None:
        """Give back all that an upload holds. Idempotent."""
        if held is self._first:
            self._first = None
        else:
            self._shrink(held, held.size)
        held.size = 0
        if self._waiting:
            self._serve()

    def give_back(self, held: Held, size: int) -> None:
        """Give back a part of what an upload holds."""
        size = min(size, held.size)
        if held is not self._first:
            self._shrink(held, size)
        held.size -= size
        if self._waiting:
            self._serve()

    def _take_now(self, held: Held, size: int) -> bool:
        if held is self._first:
            held.size += size  # bounded by the largest upload, which the reserve holds
            return True
        mine = self._by_owner.get(held.owner, 0)
        if mine + size > self.shared - self._used:
            return False
        self._by_owner[held.owner] = mine + size
        self._used += size
        held.size += size
        return True

    def _shrink(self, held: Held, size: int) -> None:
        if not size:
            return
        self._used -= size
        left = self._by_owner[held.owner] - size
        if left:
            self._by_owner[held.owner] = left
        else:
            del self._by_owner[held.owner]

    def _serve(self) -> None:
        """Let uploads go on: those of the caller that holds least first, of one caller in their order."""
        for owner in sorted(self._waiting, key=lambda owner: (owner == self._last, self._by_owner.get(owner, 0))):
            queue = self._waiting[owner]
            while queue:
                held, size, granted = queue[0]
                if not granted.done() and not self._take_now(held, size):
                    if self._first is not None:
                        break
                    self._shrink(held, held.size)
                    self._first, self._last = held, owner
                    held.size += size
                queue.popleft()
                if not granted.done():
                    granted.set_result(None)
            if not queue:
                del self._waiting[owner]
