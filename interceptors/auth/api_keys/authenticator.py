"""Whether an API key is good. Knows nothing of calls: a key goes in, a verdict comes out."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable

from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.cache import KeyCache
from interceptors.auth.api_keys.last_used import LastUsed
from interceptors.auth.api_keys.store import KeyRecord, KeyStore
from interceptors.auth.method import AuthContext, AuthMethod, MethodReport
from interceptors.calls.principal import Principal, Rejected, Undecided, Verdict

log = logging.getLogger("interceptors.auth.keys.authenticator")

_NOBODY = bytes(32)
"""What the digest is compared with where there is no key of that id: the same work as for a wrong secret."""


class KeyAuthenticator(AuthMethod):
    """Verdicts on API keys. Belongs to one event loop; cache.py has the rules on revocation and outage.

    The checks a key can fail: key_malformed, key_unknown, key_secret, key_revoked, key_expired; while the database is away
    key_store_unavailable. Whose key it is comes with the last but the first three, for those prove nothing.
    """

    header = "x-api-key"
    hint = "an API key (x-api-key: ...)"

    def __init__(
        self,
        store: KeyStore,
        pepper: bytes,
        *,
        prefix: str,
        timeout: float,
        outage: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`timeout`: seconds a call waits for the database; `outage`: seconds a good key goes on without it.

        `clock` is monotonic, for the ages of what is remembered; `now` is Unix time, for expiry.
        """
        self._pepper = pepper
        self._mark = api_key.pepper_mark(pepper)
        self._prefix = prefix
        self._now = now
        self._cache = KeyCache(store, timeout=timeout, outage=outage, clock=clock)
        self._last_used = LastUsed(store, now)
        self._store = store
        self._warned_of_pepper = False

    @property
    def report(self) -> MethodReport:
        """See AuthMethod."""
        return MethodReport({"keys": self._cache}, unavailable=lambda: self._cache.away)

    async def start(self) -> None:
        """Bring the database up to date. Does not fail without it: keys are Undecided until it is there."""
        await self._cache.start()

    async def close(self) -> None:
        """Write what is pending and close the store. Idempotent."""
        await self._cache.close()
        await self._last_used.close()
        await self._store.close()

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict:
        """See AuthMethod."""
        return await self.verify(credential)

    async def verify(self, key: str) -> Verdict:
        """The verdict on a whole key as its caller sent it."""
        parsed = api_key.parse(key, self._prefix)
        if parsed is None:
            return Rejected("key_malformed")
        digest = api_key.digest(self._pepper, parsed)
        record = await self._cache.find(parsed.id)
        if isinstance(record, Undecided):
            return record
        same = hmac.compare_digest(digest, _NOBODY if record is None else record.digest)
        if record is None:
            return Rejected("key_unknown")
        # Before all that is said of the key: without the secret nobody learns that it is revoked, or whose it is.
        if not same:
            self._look_at_pepper(record)
            return Rejected("key_secret")
        return self._verdict(record)

    def _verdict(self, record: KeyRecord) -> Principal | Rejected:
        principal = f"key:{record.id}"
        if record.revoked is not None:
            return Rejected("key_revoked", principal=principal)
        if not record.is_live(self._now()):
            return Rejected("key_expired", principal=principal, expired=True)
        self._last_used.note(record)
        return Principal(name=principal, method="api_key", scopes=record.scopes, expires=record.expires)

    def _look_at_pepper(self, record: KeyRecord) -> None:
        if record.pepper != self._mark and not self._warned_of_pepper:
            # Once: whoever sends wrong secrets must not fill the log.
            self._warned_of_pepper = True
            log.error(
                "API key %s was made with another pepper: this server cannot check it, nor any other made with that", record.id
            )
