"""Two servers tell each other of blocks and verdicts through a real Redis."""

from __future__ import annotations

import pytest

from aligner_svc.wiring.shared import RedisBlocks, RedisVerdicts
from interceptors.abuse.blocks import SharedBlock
from interceptors.antivirus.verdicts import Clean, Infected, VerdictCache
from tests.kit.redis_server import RedisServer, redis, redis_server  # noqa: F401 - fixtures
from tests.kit.waiting import eventually

BLOCK = SharedBlock(b"\xc0\x00\x02\x07", "ipv4:192.0.2.7:49534", 1, 60.0)


@pytest.fixture
def url(redis: RedisServer) -> str:  # noqa: F811 - the fixture
    redis.command("FLUSHALL")
    return redis.url


def blocks(url: str) -> tuple[RedisBlocks, list[SharedBlock]]:
    found: list[SharedBlock] = []
    server = RedisBlocks(url, seconds=3600, every=0.02)
    server.adopt = found.append
    return server, found


async def test_a_block_reaches_servers_that_run_and_those_that_start_later(url: str) -> None:
    (one, _), (other, found) = blocks(url), blocks(url)
    await one.start()
    await other.start()
    one.post(BLOCK)
    await eventually(lambda: found)
    later, learned = blocks(url)
    await later.start()
    for block in (found[0], learned[0]):
        assert block[:3] == BLOCK[:3]
        assert 0 < block.seconds <= BLOCK.seconds
    for server in (one, other, later):
        await server.close()


async def test_what_is_no_block_is_passed_over(url: str, redis: RedisServer) -> None:  # noqa: F811
    for text in ("nonsense", "[]", '["zz", "a", 1, 2]', '["00", "a", null, 2]'):
        redis.command("XADD", "abuse:blocks", "*", "block", text)
    server, found = blocks(url)
    await server.start()
    server.post(BLOCK)
    await eventually(lambda: found)
    assert [block.peer for block in found] == [BLOCK.peer]
    await server.close()


async def test_without_redis_a_server_goes_by_what_it_knows(redis: RedisServer) -> None:  # noqa: F811
    redis.kill()
    server, found = blocks(redis.url)
    await server.start()
    server.post(BLOCK)
    await server.close()
    assert not found
    verdicts = RedisVerdicts(redis.url, 60)
    await verdicts.put(b"a", Clean(), "1")
    assert await verdicts.get(b"a", "1") is None
    await verdicts.close()


@pytest.mark.parametrize("verdict", [Clean(), Infected("Eicar Test")])
async def test_a_verdict_of_one_server_holds_at_the_other_for_the_same_signatures(url: str, verdict: Clean | Infected) -> None:
    one, other = (VerdictCache(10, 60.0, shared=RedisVerdicts(url, 60)) for _ in range(2))
    for cache in (one, other):
        cache.use("1")
    one.put(b"a", verdict, "1")
    await one.close()
    assert await other.find(b"a") == verdict
    assert other.get(b"a") == verdict
    other.use("2")
    assert await other.find(b"a") is None
    await other.close()


async def test_what_is_no_verdict_is_not_taken_for_clean(url: str, redis: RedisServer) -> None:  # noqa: F811
    verdicts = RedisVerdicts(url, 60)
    await verdicts.put(b"a", Infected("x"), "1")
    key = redis.command("KEYS", "verdict:*").splitlines()[-1]
    redis.command("SET", key, "clear")
    assert await verdicts.get(b"a", "1") is None
    await verdicts.close()
