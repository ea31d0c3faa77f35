"""One connection pool to one Redis that runs one script, and answers in time or not at all."""

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
"""Enough to keep one event loop busy. Each costs it 2 ms to open: many calls at once must not spend their time on that."""
_SLOW = 1.0
"""Seconds for what no call waits for: many commands at once, a part of a scan."""
_PART = 50
"""Commands that are sent at once, and keys that are looked at before others have their turn."""

Command = tuple[Sequence[str], Sequence[str]]
"""Keys and arguments of one run of the script."""


class ScriptClient:
    """Every method raises StoreAwayError and nothing else, whatever the library raises: what fails is not ours to know."""

    def __init__(self, url: str, script: str, timeout: float) -> None:
        """`timeout`: seconds from asking to the answer. Raises ValueError for what is no URL of a Redis."""
        from redis.exceptions import NoScriptError  # noqa: PLC0415

        client, self.place = _connect_later(url, timeout)
        self._forgotten = NoScriptError
        self._client: Any = client  # its annotations are of blocking and of asyncio clients at once
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._timeout = timeout
        # redis-py refuses when its pool is empty; a command that waits a moment is better.
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def run(self, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        """What the script answers."""
        try:  # as `_in_time`, for calls that wait: a generator is a tenth of what they wait for
            async with asyncio.timeout(self._timeout), self._free:
                try:
                    return await self._client.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
                except self._forgotten:  # a Redis that was started again; this loads it
                    return await self._client.execute_command("EVAL", self._script, len(keys), *keys, *arguments)
        except Exception as error:
            raise _away(error, self._timeout) from None

    async def run_all(self, commands: Sequence[Command]) -> None:
        """Many, after one `run` has loaded the script."""
        for start in range(0, len(commands), _PART):
            async with self._in_time(_SLOW), self._client.pipeline(transaction=False) as pipeline:
                for keys, arguments in commands[start : start + _PART]:
                    pipeline.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
                await pipeline.execute()

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Keys that fit, some of them twice."""
        cursor = 0
        while True:
            async with self._in_time(_SLOW):
                cursor, keys = await self._client.scan(cursor, match=pattern, count=1000)
            for key in keys:
                yield key
            if not cursor:
                return

    async def delete(self, keys: Sequence[str]) -> None:
        """All of them."""
        async with self._in_time(self._timeout):
            for key in keys:
                await self._client.delete(key)

    async def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(Exception):  # a connection that fails while it is closed is closed
            await self._client.aclose()

    @asynccontextmanager
    async def _in_time(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds), self._free:
                yield
        except Exception as error:
            raise _away(error, seconds) from None


def _away(error: Exception, seconds: float) -> StoreUnavailableError:
    """Of redis-py's own errors, what it raises where a connection breaks under it, and of our time-out."""
    return StoreUnavailableError(f"no answer within {seconds * 1000:g} ms" if type(error) is TimeoutError else _reason(error))


def place(url: str) -> str:
    """A URL without user and password, and without what may follow its path. Raises ValueError."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _connect_later(url: str, timeout: float) -> tuple[object, str]:
    """The client, and the URL as it may be shown."""
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    try:
        shown = place(url)
        client = Redis.from_url(
            url,
            # None: `_in_time` bounds everything at once, where redis-py would allow this much for each of five steps.
            socket_timeout=None,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS,
            protocol=2,
            driver_info=None,
            decode_responses=True,
        )
    except ValueError:  # its text may quote the password
        raise ValueError("not the URL of a Redis: write redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// or unix://") from None
    return client, shown


def _reason(error: Exception) -> str:
    """Without the library's text, which may name what it was given."""
    from redis.exceptions import AuthenticationError, ConnectionError, ResponseError, TimeoutError  # noqa: PLC0415

    if isinstance(error, AuthenticationError):
        return "it does not take the user or the password"
    if isinstance(error, (ConnectionError, TimeoutError, OSError)):
        return "it cannot be reached"
    if isinstance(error, ResponseError):
        return f"it answers with an error, {type(error).__name__}"
    return f"its client failed, {type(error).__name__}"
