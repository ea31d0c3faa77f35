"""The checks of issuers, key database, Redis and clamd, against real ones."""

from __future__ import annotations

import secrets

import pytest

from aligner_svc.config import Settings
from aligner_svc.doctor import services
from aligner_svc.health.findings import Severity
from aligner_svc.wiring.api_keys import make_pepper, open_store
from tests.aligner_svc.doctor import severities
from tests.kit.clamd_server import ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.redis_server import PASSWORD, RedisServer, redis, redis_server  # noqa: F401 - fixtures
from tests.kit.scripted_issuer import scripted_issuer
from tests.kit.token_forge import SigningKey, ec_key, jwks
from tests.kit.weak_keys import roca_private_key


async def test_the_keys_of_an_issuer_are_fetched() -> None:
    async with scripted_issuer() as issuer:
        issuers = [{"issuer": issuer.url, "audience": ["a"]}]
        wanted = Settings(server={"profile": "prod"}, auth={"methods": ["jwt"]}, jwt={"issuers": issuers})
        assert severities(await services.jwks(wanted)) == [Severity.FAIL]
        issuer.publish(jwks(ec_key("one")))
        (found,) = await services.jwks(wanted)
        assert (found.severity, "1 keys" in found.message) == (Severity.OK, True)
        issuer.publish(jwks(ec_key("one"), SigningKey("two", "RS256", roca_private_key())))
        (found,) = await services.jwks(wanted)
        assert (found.severity, "key 'two': it has the ROCA" in found.message) == (Severity.WARN, True)
        issuer.publish(b'{"keys": []}')
        assert severities(await services.jwks(wanted)) == [Severity.FAIL]


async def test_the_key_database_is_read_and_not_changed(tmp_path) -> None:
    path = tmp_path / "keys.db"
    keys = {"database": f"sqlite+aiosqlite:///{path}", "pepper_file": tmp_path / "pepper"}
    wanted = Settings(server={"profile": "prod"}, auth={"methods": ["api_key"]}, keys=keys)
    assert severities(await services.keys(wanted)) == [Severity.FAIL, Severity.FAIL]
    assert list(tmp_path.iterdir()) == []
    make_pepper(wanted.keys)
    path.touch(0o600)
    (found,) = await services.keys(wanted)
    assert (found.severity, "is at level none" in found.message) == (Severity.WARN, True)
    store = open_store(wanted.keys)
    await store.migrate()
    await store.close()
    (found,) = await services.keys(wanted)
    assert (found.severity, "0 keys, level 0001" in found.message) == (Severity.OK, True)
    path.chmod(0o604)
    assert Severity.WARN in severities(await services.keys(wanted))
    path.write_bytes(secrets.token_bytes(4096))
    path.chmod(0o600)
    assert severities(await services.keys(wanted)) == [Severity.FAIL]


async def test_the_configuration_of_redis_is_checked(redis: RedisServer) -> None:  # noqa: F811
    wanted = Settings(quota={"redis": redis.url})
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    (found,) = await services.redis(wanted)
    assert "maxmemory-policy noeviction" in found.message
    assert PASSWORD not in found.message
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = await services.redis(wanted)
    assert Severity.WARN in severities(found)
    assert any("noeviction" in one.hint for one in found)
    (found,) = await services.redis(Settings(quota={"redis": f"redis://:wrong@127.0.0.1:{redis.port}"}))
    assert (found.severity, "rejects the user or the password" in found.message) == (Severity.FAIL, True)


@pytest.mark.parametrize(
    ("information", "latency", "clock_difference", "expected"),
    [
        ({"maxmemory_policy": "noeviction"}, 0.001, 0.1, [Severity.OK]),
        ({"maxmemory_policy": "noeviction", "role": "slave"}, 0.001, 0.1, [Severity.FAIL]),
        ({"maxmemory_policy": "noeviction"}, 0.04, 0.1, [Severity.WARN]),
        ({"maxmemory_policy": "noeviction"}, 0.001, 60.0, [Severity.WARN]),
    ],
)
def test_a_redis_replica_or_a_slow_one_or_a_wrong_clock_is_found(information, latency, clock_difference, expected) -> None:
    assert severities(services.judge_redis("redis://cache", information, latency, clock_difference)) == expected


async def test_clamd_must_answer_and_accept_the_largest_upload(clamav: ClamdServer) -> None:  # noqa: F811
    def wanted(**more) -> Settings:
        return Settings(antivirus={"address": clamav.unix, "stream_max_bytes": clamav.stream_max_bytes, **more})

    (found,) = await services.clamd(wanted())
    assert (found.severity, "ClamAV" in found.message) == (Severity.OK, True)
    (found,) = await services.clamd(wanted(stream_max_bytes=clamav.stream_max_bytes + (1 << 20)))
    assert (found.severity, "StreamMaxLength" in found.hint) == (Severity.FAIL, True)
    assert Severity.WARN in severities(await services.clamd(wanted(fail_open=True)))
