"""A bounded cache of what is known about credentials."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry")


class LruCache(Generic[_Key, _Entry]):
    """At most `max_entries`; the least recently used entry is evicted first. With 0 the cache stays empty.

    `hits` and `misses` are for metrics and counted by the owner, which alone knows whether an entry is still valid.
    """

    def __init__(self, max_entries: int) -> None:
        self.hits = 0
        self.misses = 0
        self._max_entries = max_entries
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: _Key) -> _Entry | None:
        """Look up an entry."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: _Key, entry: _Entry) -> None:
        """Add or replace an entry."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def drop(self, key: _Key) -> None:
        """Remove an entry, if there is one."""
        self._entries.pop(key, None)
