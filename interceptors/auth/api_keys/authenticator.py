"""Authenticates API keys: a key in, a verdict out. Independent of gRPC."""

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

_NO_DIGEST = bytes(32)
"""Compared with the digest of a key with an unknown id, so that it takes as long as one with a wrong secret."""


class KeyAuthenticator(AuthMethod):
    """Verdicts on API keys. Belongs to one event loop; see cache.py for the rules on revocation and outages.

    The checks a key can fail: key_malformed, key_unknown, key_secret, key_revoked, key_expired; key_store_unavailable while
    the database is unavailable. Only key_revoked and key_expired name the principal, as the others prove nothing.
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
        """`timeout`: seconds a call waits for the database; `outage`: seconds a known key stays valid without it.

        `clock`: monotonic, for the age of cached records; `now`: Unix time, for expiry.
        """
        self._cache = KeyCache(store, timeout=timeout, outage=outage, clock=clock)
        self._pepper = pepper
        self._mark = api_key.pepper_mark(pepper)
        self._prefix = prefix
        self._now = now
        self._last_used = LastUsed(store, now)
        self._store = store
        self._pepper_warned = False

    @property
    def report(self) -> MethodReport:
        """See AuthMethod."""
        return MethodReport({"keys": self._cache}, unavailable=lambda: self._cache.unavailable)

    async def start(self) -> None:
        """Migrate the database. Does not fail if it is unavailable: keys are Undecided until it is back."""
        await self._cache.start()

    async def close(self) -> None:
        """Write what is pending and close the store. Idempotent."""
        await self._cache.close()
        await self._last_used.close()
        await self._store.close()

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict:
        """Judge a complete key as the client sent it."""
        parsed = api_key.parse(credential, self._prefix)
        if parsed is None:
            return Rejected("key_malformed")
        digest = api_key.digest(self._pepper, parsed)
        record = await self._cache.find(parsed.id)
        if isinstance(record, Undecided):
            return record
        same = hmac.compare_digest(digest, _NO_DIGEST if record is None else record.digest)
        if record is None:
            return Rejected("key_unknown")
        # Before every other check: without the secret a client must not learn that a key is revoked, or whose it is.
        if same:
            return self._verdict(record)
        if record.pepper != self._mark and not self._pepper_warned:
            self._pepper_warned = True  # log once, so that wrong secrets cannot flood the log
            log.error("API key %s was made with another pepper: this server cannot check keys made with it", record.id)
        return Rejected("key_secret")

    def _verdict(self, record: KeyRecord) -> Principal | Rejected:
        principal = f"key:{record.id}"
        if record.revoked is not None:
            return Rejected("key_revoked", principal=principal)
        if not record.is_live(self._now()):
            return Rejected("key_expired", principal=principal, expired=True)
        self._last_used.note(record)
        return Principal(name=principal, method="api_key", scopes=record.scopes, expires=record.expires)
