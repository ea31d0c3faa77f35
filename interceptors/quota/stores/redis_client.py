"""Runs one script on one Redis, over a pool of connections, with a bound on the time for everything."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from interceptors.quota.stores.base import StoreUnavailableError

CONNECTIONS = 8
"""Enough to keep one event loop busy. Opening one costs it 2 ms, which many calls at once must not wait for."""
_BULK_TIMEOUT = 1.0
"""Seconds for work that no call waits for: many commands at once, one step of a scan."""
_MAX_COMMANDS = 50
"""Commands sent at once, before those of calls have their turn."""

Command = tuple[Sequence[str], Sequence[str]]
"""Keys and arguments of one run of the script."""


class ScriptClient:
    """Every method raises StoreUnavailableError and nothing else, whatever the library raises."""

    def __init__(self, url: str, script: str, timeout: float) -> None:
        """`timeout`: seconds for a command, with waiting for a connection. Raises ValueError for an invalid URL."""
        from redis.exceptions import NoScriptError  # noqa: PLC0415

        client, self.place = _connect_later(url, timeout)
        self._not_loaded = NoScriptError
        self._client: Any = client  # its annotations are of blocking and of asyncio clients at once
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self.timeout = timeout
        # redis-py raises if its pool is empty; here a command waits.
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def run(self, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        """The answer of the script."""
        try:  # `_bounded` written out: its generator would take a tenth of the time
            async with asyncio.timeout(self.timeout), self._free:
                try:
                    return await self._client.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
                except self._not_loaded:  # Redis was restarted; this loads the script
                    return await self._client.execute_command("EVAL", self._script, len(keys), *keys, *arguments)
        except Exception as error:
            raise _unavailable(error, self.timeout) from None

    async def run_all(self, commands: Sequence[Command]) -> None:
        """Many, once a `run` has loaded the script."""
        for start in range(0, len(commands), _MAX_COMMANDS):
            async with self._bounded(_BULK_TIMEOUT), self._client.pipeline(transaction=False) as pipeline:
                for keys, arguments in commands[start : start + _MAX_COMMANDS]:
                    pipeline.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
                await pipeline.execute()

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Keys that match, some of them twice."""
        cursor = 0
        while True:
            async with self._bounded(_BULK_TIMEOUT):
                cursor, keys = await self._client.scan(cursor, match=pattern, count=1000)
            for key in keys:
                yield key
            if not cursor:
                return

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._bounded(self.timeout):
            for key in keys:
                await self._client.delete(key)

    async def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(Exception):  # a connection that fails while it is closed is closed
            await self._client.aclose()

    @asynccontextmanager
    async def _bounded(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds), self._free:
                yield
        except Exception as error:
            raise _unavailable(error, seconds) from None


def place(url: str) -> str:
    """A URL without user, password, query and fragment. Raises ValueError."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _connect_later(url: str, timeout: float) -> tuple[object, str]:
    """The client, and the URL that may be shown."""
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    try:
        shown = place(url)
        client = Redis.from_url(
            url,
            # None: `_bounded` bounds the whole, redis-py each of five steps.
            socket_timeout=None,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS,
            protocol=2,
            driver_info=None,
            decode_responses=True,
        )
    except ValueError:  # whose text may quote the password
        raise ValueError("not a Redis URL: write redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// or unix://") from None
    return client, shown


def _unavailable(error: Exception, seconds: float) -> StoreUnavailableError:
    """Without the library's text, which may quote what it was given."""
    from redis import exceptions  # noqa: PLC0415

    if type(error) is TimeoutError:
        reason = f"no answer within {seconds * 1000:g} ms"
    elif isinstance(error, exceptions.AuthenticationError):
        reason = "it refuses the user or the password"
    elif isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
        reason = "it cannot be reached"
    elif isinstance(error, exceptions.ResponseError):
        reason = f"it answers with an error, {type(error).__name__}"
    else:
        reason = f"its client failed, {type(error).__name__}"
    return StoreUnavailableError(reason)
