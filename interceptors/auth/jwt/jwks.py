"""Where an issuer's keys come from: a URL that is asked again and again, or a file that is read when it changes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from interceptors.auth.jwt.jwk import Key, KeySet, read_keys
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.jwks_http import LARGEST, KeysHttp
from interceptors.background import BackgroundTask
from interceptors.rules.file_watch import FileWatch

log = logging.getLogger("interceptors.auth.jwks")

START_TIMEOUT = 2.0
"""Seconds that `start` waits for the first keys."""
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 30.0
"""Seconds between attempts while they fail: an outage is over half a minute after the issuer is back, at the latest."""


class KeySource(Protocol):
    """The keys of one issuer, kept up to date in the background."""

    async def start(self) -> None:
        """Get the keys and keep getting them."""

    async def close(self) -> None:
        """Idempotent."""

    def find(self, kid: str) -> Key | None:
        """Among the keys that are known now."""

    async def seek(self) -> None:
        """A kid is unknown: look for newer keys, if that was not just done. Never raises."""

    @property
    def trouble(self) -> str:
        """Why nothing can be decided by these keys: keys_unavailable, keys_stale; "" when it can."""

    @property
    def age_seconds(self) -> float | None:
        """Since the keys were got; None: they never were."""

    @property
    def last_error(self) -> str:
        """Why the last attempt to get them failed: a check of KeysError; "" when it did not."""


class _Held:
    """The keys of an issuer as they were last got."""

    def __init__(self, owner: str, clock: Callable[[], float]) -> None:
        self.owner = owner
        self.error = ""
        self._clock = clock
        self._taken: float | None = None
        self._set = KeySet({})

    @property
    def keys(self) -> Mapping[str, Key]:
        return self._set.keys

    @property
    def age(self) -> float | None:
        return None if self._taken is None else self._clock() - self._taken

    def take(self, raw: bytes, asked: float) -> None:
        """Raises KeysError, and then holds what it held. `asked`: clock's time at which `raw` was still to come."""
        try:
            found = read_keys(raw)
        except ValueError:
            raise JwksError("malformed", "no JWK set") from None
        for reason in found.ignored:
            if reason not in self._set.ignored:  # once, not at every refresh
                log.warning("keys of %s: %s; it is ignored", self.owner, reason)
        if not found.keys and (self.keys or self._taken is None):
            log.warning("keys of %s: none of the set can be used: its tokens are refused", self.owner)
        if self.error:
            log.info("keys of %s: got them again", self.owner)
        self._set, self._taken, self.error = found, asked, ""

    def failed(self, error: JwksError) -> None:
        if error.check != self.error:
            log.warning("keys of %s could not be got, those at hand are kept (%d): %s", self.owner, len(self.keys), error)
        self.error = error.check


class FileKeys(KeySource):
    """From a JWK set in a file, looked at every `every` seconds.

    A file that has become unreadable leaves the keys as they are, for however long: it is the operator's own, and no
    outage of another's service. At the start it is an error.
    """

    def __init__(self, path: Path, every: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._held = _Held(str(path), clock)
        self._clock = clock
        self._watch = FileWatch((path,), self._changed, every)

    async def start(self) -> None:
        """Raises KeysError when the file is not there, is no JWK set or has no key that can be used."""
        self._read()
        if not self._held.keys:
            raise JwksError("malformed", f"{self._path} has no key that can be used")
        await self._watch.start()

    async def close(self) -> None:
        await self._watch.close()

    def find(self, kid: str) -> Key | None:
        return self._held.keys.get(kid)

    async def seek(self) -> None:
        """The watch sees a new file by itself."""

    @property
    def trouble(self) -> str:
        return "keys_unavailable" if self._held.age is None else ""

    @property
    def age_seconds(self) -> float | None:
        return self._held.age

    @property
    def last_error(self) -> str:
        return self._held.error

    def _changed(self) -> None:
        try:
            self._read()
        except JwksError as error:
            self._held.failed(error)

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                raw = file.read(LARGEST + 1)
        except OSError as error:
            raise JwksError("unreadable", f"{self._path}: {error.strerror}") from None
        if len(raw) > LARGEST:
            raise JwksError("too_large", f"{self._path} has more than {LARGEST} bytes")
        try:
            self._held.take(raw, self._clock())
        except JwksError as error:
            raise JwksError(error.check, f"{self._path}: no JWK set") from None


class UrlKeys(KeySource):
    """From the issuer, every `refresh` seconds; `url` of its JWK set, None: discovered from its metadata.

    While it is out of reach the keys at hand go on for `stale` seconds from when they were asked for. A kid that is
    unknown makes it ask at once, but only every `cooldown` seconds: anybody can write a token with a new kid, and each
    of them would be a request to the issuer. So a key that has just been put to use may be refused for that long, if
    somebody else has asked in vain just before. `clock` counts seconds from anywhere.
    """

    def __init__(
        self,
        issuer: str,
        url: str | None = None,
        *,
        refresh: float,
        stale: float,
        cooldown: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = KeysHttp(issuer, url)
        self._held = _Held(issuer, clock)
        self._refresh = refresh
        self._stale = stale
        self._cooldown = cooldown
        self._clock = clock
        self._sought: float | None = None
        self._failures = 0
        self._fetching = BackgroundTask(f"fetching the keys of {issuer}", self._fetched)
        self._keeping = BackgroundTask(f"refreshing the keys of {issuer}", self._keep)

    async def start(self) -> None:
        """Returns with the keys, after a failure, or after START_PATIENCE: a server can start while its issuer is down."""
        self._keeping.start()
        await self._fetch(START_TIMEOUT)

    async def close(self) -> None:
        await self._keeping.close()
        await self._fetching.close()
        await self._http.close()

    def find(self, kid: str) -> Key | None:
        return self._held.keys.get(kid)

    async def seek(self) -> None:
        """Whoever comes while a request is under way waits for that one."""
        if not self._keeping.running:
            return  # not started, or closed
        if not self._fetching.running:
            now = self._clock()
            if self._sought is not None and now - self._sought < self._cooldown:
                return
            self._sought = now
        await self._fetch()

    @property
    def trouble(self) -> str:
        age = self._held.age
        if age is None:
            return "keys_unavailable"
        return "keys_stale" if age > self._stale else ""

    @property
    def age_seconds(self) -> float | None:
        return self._held.age

    @property
    def last_error(self) -> str:
        return self._held.error

    async def _fetch(self, max_seconds: float | None = None) -> None:
        """Wait for the request in flight, or for a new one. A call that is cancelled leaves the request to the others."""
        self._fetching.start()
        await self._fetching.wait(max_seconds)

    async def _fetched(self) -> None:
        asked = self._clock()
        try:
            self._held.take(await self._http.fetch(), asked)
        except JwksError as error:
            self._held.failed(error)
        except Exception as error:  # a bug, but no reason to ask never again
            log.exception("keys of %s", self._held.owner)
            self._held.failed(JwksError("unexpected", type(error).__name__))
        self._failures = self._failures + 1 if self._held.error else 0

    async def _keep(self) -> None:
        while True:
            await self._fetch()
            await asyncio.sleep(pause(self._failures, self._refresh))


def pause(failures: int, refresh: float) -> float:
    """Seconds until the next attempt. Spread, so that the servers of one issuer do not ask it in step."""
    if failures == 0:
        return refresh * random.uniform(0.9, 1.0)
    return min(refresh, _MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
