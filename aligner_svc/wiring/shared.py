"""What several servers tell each other through the Redis of the quotas: blocked addresses, and verdicts on uploads.

Neither is needed to serve: while Redis does not answer each server goes by what it knows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from typing import Final

from interceptors.abuse.blocks import SharedBlock
from interceptors.antivirus.verdicts import Clean, Infected, Verdict
from interceptors.background import BackgroundTask, Tasks
from interceptors.quota.stores.base import StoreUnavailableError
from interceptors.quota.stores.redis_client import ScriptClient

log = logging.getLogger(__name__)

FOLLOW_EVERY: Final = 1.0
"""Seconds until a block is in force everywhere."""
_MAX_BLOCKS: Final = 10_000
"""Blocks kept in Redis, the latest: 200 bytes each."""
_AT_A_TIME: Final = 1000
_LABEL: Final = 100
"""Characters of a peer's name."""
_TIMEOUT: Final = 0.05
"""Seconds that an upload waits for a verdict: a healthy Redis takes 0.3 ms."""
_RETRY: Final = 5.0
"""Seconds without look-ups after one that failed."""

# A stream, whose ids are Redis's time in milliseconds: all servers reckon by one clock.
_BLOCKS: Final = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if ARGV[1] == 'post' then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'block', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  return now
end
return {now, redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])}
"""
_VERDICTS: Final = """
if ARGV[1] == '' then return redis.call('GET', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
"""


class RedisBlocks:
    """`post` blocks that begin here; those of others are passed to `adopt`. Start and close it with the server."""

    def __init__(self, url: str, *, seconds: float, every: float = FOLLOW_EVERY) -> None:
        """`seconds`: of the longest block. Raises ValueError for an invalid URL."""
        self._client = ScriptClient(url, _BLOCKS, 1.0)
        self._keep = str(int(seconds) + 1)
        self._last = "0-0"
        self._unavailable = False
        self._telling = Tasks()
        self._follow = BackgroundTask("abuse: reading the blocks of other servers", self.refresh, every=every)
        self.adopt: Callable[[SharedBlock], None] = lambda block: None

    async def start(self) -> None:
        """Read those in force. Does not fail if Redis is unavailable."""
        await self.refresh()
        self._follow.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._follow.close()
        await self._telling.wait()
        await self._client.close()

    def post(self, block: SharedBlock) -> None:
        """Tell the others, in the background; they are not told while Redis is unavailable."""
        self._telling.start(self._post(block))

    async def refresh(self) -> None:
        """Take in the blocks that began since the last time."""
        try:
            while True:
                now, entries = await self._client.run(("abuse:blocks",), ("read", self._last, str(_AT_A_TIME)))
                for entry, (_, text) in entries:
                    self._last = entry
                    if (block := _block(text, (int(now) - int(entry.partition("-")[0])) / 1000)) is not None:
                        self.adopt(block)
                if len(entries) < _AT_A_TIME:
                    break
        except StoreUnavailableError as error:
            if not self._unavailable:
                self._unavailable = True
                log.warning("abuse: the blocks of other servers cannot be read (%s)", error)
            return
        self._unavailable = False

    async def _post(self, block: SharedBlock) -> None:
        text = json.dumps([block.peer.hex(), block.label[:_LABEL], block.level, block.seconds])
        try:
            await self._client.run(("abuse:blocks",), ("post", text, str(_MAX_BLOCKS), self._keep))
        except StoreUnavailableError as error:
            log.warning("abuse: other servers are not told of a block (%s)", error)


class RedisVerdicts:
    """SharedVerdicts. `seconds` that a verdict is kept."""

    def __init__(self, url: str, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError for an invalid URL."""
        self._client = ScriptClient(url, _VERDICTS, _TIMEOUT)
        self._seconds = str(max(1, int(seconds)))
        self._now = now
        self._rest_until = 0.0

    async def get(self, digest: bytes, version: str) -> Verdict | None:
        """None for anything that is not a verdict."""
        found = await self._run(digest, version, "")
        kind, _, signature = found.partition(" ") if isinstance(found, str) else ("", "", "")
        if kind == "clean":
            return Clean()
        return Infected(signature) if kind == "infected" else None

    async def put(self, digest: bytes, verdict: Verdict, version: str) -> None:
        await self._run(digest, version, f"infected {verdict.signature}" if isinstance(verdict, Infected) else "clean")

    async def close(self) -> None:
        """Idempotent."""
        await self._client.close()

    async def _run(self, digest: bytes, version: str, value: str) -> object:
        if self._now() < self._rest_until:
            return None
        key = f"verdict:{hashlib.sha256(version.encode()).hexdigest()[:16]}:{digest.hex()}"
        try:
            return await self._client.run((key,), (value, self._seconds))
        except StoreUnavailableError as error:
            self._rest_until = self._now() + _RETRY
            log.warning("antivirus: verdicts of other servers cannot be looked up (%s)", error)
            return None


def _block(text: str, age: float) -> SharedBlock | None:
    """None for anything else that somebody wrote there."""
    try:
        peer, label, level, seconds = json.loads(text)
        return SharedBlock(bytes.fromhex(peer), str(label)[:_LABEL], int(level), float(seconds) - age)
    except (ValueError, TypeError):
        return None
