"""Verified tokens, so that a signature is not computed again for every call of a client."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from interceptors.auth.jwt.access_token import Verified


class TokenCache:
    """At most `size` tokens, the one unused for longest going first; 0: none.

    Kept under their SHA-256, never as what they are: a dump of the memory holds nothing that could be replayed. There is
    no sweep for expired ones: they go when they are next looked up, or by their age.
    """

    def __init__(self, size: int) -> None:
        self.hits = 0
        self.misses = 0
        """Look-ups for metrics, counted by who looks up: it alone knows whether what was found still holds."""
        self._size = size
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def get(self, digest: bytes) -> Verified | None:
        """What is known of the token with this `token_digest`."""
        verified = self._verified.get(digest)
        if verified is not None:
            self._verified.move_to_end(digest)
        return verified

    def put(self, digest: bytes, verified: Verified) -> None:
        """Remember one; another may go for it."""
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        while len(self._verified) > self._size:
            self._verified.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Forget one, if it is there."""
        self._verified.pop(digest, None)


def token_digest(token: str) -> bytes:
    """The name a token is remembered under; `token` is ASCII."""
    return hashlib.sha256(token.encode("ascii")).digest()
