"""Verified tokens, so that a signature is not verified again for every call of a client."""

from __future__ import annotations

from collections import OrderedDict

from interceptors.auth.jwt.access_token import Verified


class TokenCache:
    """An LRU cache of at most `size` verified tokens; with size 0 it stays empty.

    `digest` is a token's SHA-256. The token itself is not kept, so that a memory dump contains nothing to replay.
    Expired tokens are not swept; they are dropped at their next lookup or as the least recently used.
    """

    def __init__(self, size: int) -> None:
        self.hits = 0
        self.misses = 0
        """Lookups, for metrics; counted by the caller, which alone knows whether an entry is still valid."""
        self._size = size
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def get(self, digest: bytes) -> Verified | None:
        """The token with this digest, if it is cached."""
        verified = self._verified.get(digest)
        if verified is not None:
            self._verified.move_to_end(digest)
        return verified

    def put(self, digest: bytes, verified: Verified) -> None:
        """Cache a token; the least recently used one is evicted if the cache is full."""
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        while len(self._verified) > self._size:
            self._verified.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Remove a token, if it is cached."""
        self._verified.pop(digest, None)
