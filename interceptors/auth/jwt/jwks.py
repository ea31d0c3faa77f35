"""Sources of an issuer's keys: a URL that is fetched periodically, or a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from interceptors.auth.jwt.jwk import Key, KeySet, read_keys
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.jwks_http import MAX_BYTES, KeysHttp
from interceptors.background import BackgroundTask
from interceptors.rules.file_watch import FileWatch

log = logging.getLogger("interceptors.auth.jwks")

START_TIMEOUT = 2.0
"""Seconds that `start` waits for the first keys."""
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 30.0
"""Seconds between failing attempts: an issuer that is back is noticed within half a minute."""


class KeySource(ABC):
    """The keys of one issuer, kept up to date in the background.

    `name`: the issuer or file, for log lines. `max_age`: seconds that keys may be used after they were requested, if they
    cannot be fetched again. `clock`: monotonic, seconds.
    """

    def __init__(self, name: str, *, max_age: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.last_error = ""
        """The check of the JwksError that the last fetch ended with; "" after a successful one."""
        self._name = name
        self._max_age = max_age
        self._clock = clock
        self._requested: float | None = None
        self._set = KeySet({})

    @abstractmethod
    async def start(self) -> None:
        """Get the keys, then keep them up to date."""

    @abstractmethod
    async def close(self) -> None:
        """Idempotent."""

    @abstractmethod
    async def refresh(self) -> None:
        """Look for newer keys because a kid is unknown, unless that was just done. Never raises."""

    def find(self, kid: str) -> Key | None:
        """Find a key among those known now."""
        return self._set.keys.get(kid)

    @property
    def trouble(self) -> str:
        """Why tokens cannot be verified: keys_unavailable (never fetched) or keys_stale; "" if they can."""
        age = self.age_seconds
        if age is None:
            return "keys_unavailable"
        return "keys_stale" if age > self._max_age else ""

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the current keys were requested; None: there never were any."""
        return None if self._requested is None else self._clock() - self._requested

    def _accept(self, raw: bytes, requested: float) -> None:
        """Replace the keys. Raises JwksError and keeps them if `raw` is not a JWK set. `requested`: when it was asked for."""
        try:
            found = read_keys(raw)
        except ValueError:
            raise JwksError("malformed", f"{self._name}: not a JWK set") from None
        for reason in found.ignored:
            if reason not in self._set.ignored:  # once, not at every refresh
                log.warning("keys of %s: ignoring %s", self._name, reason)
        if not found.keys and (self._set.keys or self._requested is None):
            log.warning("keys of %s: none is usable, all tokens of the issuer are refused", self._name)
        if self.last_error:
            log.info("keys of %s: fetched again after failures", self._name)
        self._set, self._requested, self.last_error = found, requested, ""

    def _failed(self, error: JwksError) -> None:
        if error.check != self.last_error:
            log.warning("keys of %s could not be fetched, keeping the %d known: %s", self._name, len(self._set.keys), error)
        self.last_error = error.check


class FileKeys(KeySource):
    """From a JWK set in a file, checked for changes every `every` seconds.

    If the file becomes unreadable the known keys are kept for any length of time: it is under the operator's own control,
    unlike the service of another party. At the start it is an error.
    """

    def __init__(self, path: Path, every: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(str(path), clock=clock)
        self._path = path
        self._watch = FileWatch((path,), self._changed, every)

    async def start(self) -> None:
        """Raises JwksError if the file is missing, is not a JWK set or has no usable key."""
        self._read()
        if not self._set.keys:
            raise JwksError("malformed", f"{self._path} has no usable key")
        await self._watch.start()

    async def close(self) -> None:
        await self._watch.close()

    async def refresh(self) -> None:
        """Does nothing: the watch notices a new file."""

    def _changed(self) -> None:
        try:
            self._read()
        except JwksError as error:
            self._failed(error)

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise JwksError("unreadable", f"{self._path}: {error.strerror}") from None
        if len(raw) > MAX_BYTES:
            raise JwksError("too_large", f"{self._path} has more than {MAX_BYTES} bytes")
        self._accept(raw, self._clock())


class UrlKeys(KeySource):
    """From the issuer, every `refresh` seconds; `url` of its JWK set, None: discovered from its metadata.

    While the issuer is unavailable the known keys are used for `stale` seconds after they were requested. An unknown kid
    causes an immediate request, but at most one every `cooldown` seconds: anyone can send tokens with made-up kids, and
    each would be a request to the issuer. So a new key may be refused for that long if another unknown kid came just before.
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
        super().__init__(issuer, max_age=stale, clock=clock)
        self._http = KeysHttp(issuer, url)
        self._refresh = refresh
        self._cooldown = cooldown
        self._refreshed: float | None = None
        self._failures = 0
        self._fetching = BackgroundTask(f"fetching the keys of {issuer}", self._fetched)
        self._keeping = BackgroundTask(f"refreshing the keys of {issuer}", self._keep)

    async def start(self) -> None:
        """Return after the first fetch, failed or not, or START_TIMEOUT: a server can start while its issuer is down."""
        self._keeping.start()
        await self._fetch(START_TIMEOUT)

    async def close(self) -> None:
        await self._keeping.close()
        await self._fetching.close()
        await self._http.close()

    async def refresh(self) -> None:
        """Callers during a request wait for that request instead of making another."""
        if not self._keeping.running:
            return  # not started, or closed
        if not self._fetching.running:
            now = self._clock()
            if self._refreshed is not None and now - self._refreshed < self._cooldown:
                return
            self._refreshed = now
        await self._fetch()

    async def _fetch(self, max_seconds: float | None = None) -> None:
        """Wait for the request in flight, or for a new one. Cancelling the wait does not cancel it: others may wait too."""
        self._fetching.start()
        await self._fetching.wait(max_seconds)

    async def _fetched(self) -> None:
        requested = self._clock()
        try:
            self._accept(await self._http.fetch(), requested)
        except JwksError as error:
            self._failed(error)
        except Exception as error:  # a bug, but no reason to stop fetching
            log.exception("keys of %s: fetching them failed unexpectedly", self._name)
            self._failed(JwksError("unexpected", type(error).__name__))
        self._failures = self._failures + 1 if self.last_error else 0

    async def _keep(self) -> None:
        while True:
            await self._fetch()
            await asyncio.sleep(pause(self._failures, self._refresh))


def pause(failures: int, refresh: float) -> float:
    """Seconds until the next attempt, randomised so that the servers of one issuer do not ask it at the same time."""
    if failures == 0:
        return refresh * random.uniform(0.9, 1.0)
    return min(refresh, _MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
