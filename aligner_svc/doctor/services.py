"""What the server talks to: issuers, the key database, Redis, clamd."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.config.security import Issuer
from aligner_svc.doctor.files import readers
from aligner_svc.health import phrases as words
from aligner_svc.health.findings import Finding, Severity, in_thread
from interceptors.auth.jwt.jwk import read_keys
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.jwks_http import KeysHttp
from interceptors.quota.stores.redis_client import place

_SLOW_REDIS = 0.025
"""Seconds. A server waits 50 ms for it at most and then counts by itself."""
_OFF = 5.0
"""Seconds clocks may differ by: quotas and tokens are counted in time."""
_TRIED = 64 << 20
"""Bytes that clamd is sent to see whether it takes them, at most."""


async def jwks(settings: Settings) -> Sequence[Finding]:
    """The keys of every issuer."""
    if "jwt" not in settings.auth.methods or not settings.jwt.issuers:
        return [Finding("jwks", Severity.SKIP, "tokens are not a method of proof")]
    return await asyncio.gather(*(_issuer(one) for one in settings.jwt.issuers))


async def _issuer(issuer: Issuer) -> Finding:

    try:
        if issuer.jwks_file is not None:
            raw = await in_thread(issuer.jwks_file.read_bytes)
            source = str(issuer.jwks_file)
        else:
            http = KeysHttp(issuer.issuer, issuer.jwks_url)
            source = issuer.jwks_url or "its metadata"
            try:
                raw = await http.fetch()
            finally:
                await http.close()
        found = read_keys(raw)
    except JwksError as error:
        return words.issuer_keys_never_got(issuer.issuer, str(error))
    except OSError as error:
        why = (error.strerror or "input/output error").lower()
        return Finding("jwks", Severity.FAIL, f"{issuer.issuer}: {issuer.jwks_file}: {why}", "setting jwt.issuers")
    except ValueError:
        return Finding("jwks", Severity.FAIL, f"{issuer.issuer}: no JWK set at {source}", "setting jwt.issuers")
    if not found.keys:
        said = f"{issuer.issuer}: none of the keys at {source} can be used"
        return Finding("jwks", Severity.FAIL, said, "RSA of 2048 bits, P-256 or Ed25519, each with a kid, are needed")
    return Finding("jwks", Severity.OK, f"{issuer.issuer}: {len(found.keys)} keys from {source}")


async def keys(settings: Settings) -> Sequence[Finding]:
    """The pepper and the database of API keys."""
    if "api_key" not in settings.auth.methods:
        return [Finding("keys", Severity.SKIP, "API keys are not a method of proof")]
    from aligner_svc.wiring.api_keys import PepperError, read_pepper  # noqa: PLC0415
    from interceptors.auth.api_keys.database import FAULTS, Database, DatabaseUrlError, KeyStoreError, reason  # noqa: PLC0415

    found: list[Finding] = []
    try:
        await in_thread(lambda: read_pepper(settings.keys))
        if settings.keys.pepper is None:
            found += readers("keys", settings.keys.pepper_file.absolute())
    except PepperError as error:
        found.append(Finding("keys", Severity.FAIL, str(error), "the server would not start"))
    try:
        database = Database(settings.keys.database.get_secret_value())
    except DatabaseUrlError as error:
        return [*found, Finding("keys", Severity.FAIL, f"keys.database: {error}", "setting keys.database")]
    try:
        database.file_identity()  # SQLite would make it
        have, count = await _level(database)
    except KeyStoreError as error:
        return [*found, Finding("keys", Severity.FAIL, str(error), "`aligner keys create` makes it, with the first key")]
    except FAULTS as error:
        return [*found, words.key_database_unavailable(str(database), reason(error))]
    if database.sqlite_file is not None:
        found += readers("keys", database.sqlite_file)
    newest = await in_thread(_newest)
    if have != newest:
        said = f"{database} is at level {have or 'none'}, this program's is {newest}"
        hint = "a server that starts brings it up to date; one that is older than the database does not start"
        return [*found, Finding("keys", Severity.WARN, said, hint)]
    return [*found, Finding("keys", Severity.OK, f"{database}: {count} keys, level {have}")]


async def _level(database: Any) -> tuple[str, int]:
    """The migration the database is at, "" before the first, and how many keys there are. Raises FAULTS."""
    from sqlalchemy import column, func, inspect, pool, select, table  # noqa: PLC0415

    from interceptors.auth.api_keys.schema import VERSION_TABLE, api_keys  # noqa: PLC0415

    engine = database.engine(3.0, poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            tables = set(await connection.run_sync(lambda it: inspect(it).get_table_names()))
            if not {VERSION_TABLE, api_keys.name} <= tables:
                return "", 0
            have = (await connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE)))).scalar()
            count = (await connection.execute(select(func.count()).select_from(api_keys))).scalar()
            return str(have or ""), int(count or 0)
    finally:
        await engine.dispose()


def _newest() -> str:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from interceptors.auth.api_keys import migrations  # noqa: PLC0415

    return str(ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head())


async def redis(settings: Settings) -> Sequence[Finding]:
    """Whether quotas can be counted there, and stay."""
    if settings.quota.redis is None:
        return [Finding("redis", Severity.SKIP, "not set: each server counts by itself")]
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.exceptions import AuthenticationError, RedisError, ResponseError  # noqa: PLC0415

    url = settings.quota.redis.get_secret_value()
    try:
        where = place(url)
        client: Any = Redis.from_url(url, decode_responses=True, protocol=2)
    except ValueError:  # its text may quote the password
        return [
            Finding("redis", Severity.FAIL, "quota.redis is not the URL of a Redis", "redis://[USER:PASSWORD@]HOST[:PORT][/DB]")
        ]
    try:
        await client.ping()
        began = time.perf_counter()
        await client.ping()
        took = time.perf_counter() - began
        seconds, micros = await client.time()
        information = await client.info()
    except AuthenticationError:
        return [words.redis_unusable(f"{where} does not take the user or the password")]
    except ResponseError:
        said = f"{where} answers, and does not let this user use PING, TIME and INFO"
        return [Finding("redis", Severity.WARN, said, "whether it is set up well could not be seen")]
    except (RedisError, OSError):
        return [words.redis_unavailable(where)]
    finally:
        with contextlib.suppress(Exception):
            await client.aclose()
    return judge_redis(where, information, took, abs(time.time() - (seconds + micros / 1e6)))


def judge_redis(where: str, information: dict[str, Any], took: float, off: float) -> list[Finding]:
    policy = str(information.get("maxmemory_policy", "unknown"))
    said = f"{where}: version {information.get('redis_version', 'unknown')}, {took * 1000:.1f} ms, maxmemory-policy {policy}"
    found = []
    if policy not in {"noeviction", "unknown"}:
        hint = "set maxmemory-policy to noeviction: what is evicted was never used, and its caller's quota is full again"
        found.append(Finding("redis", Severity.WARN, said, hint))
    if information.get("role") == "slave":
        found.append(Finding("redis", Severity.FAIL, f"{where} is a replica, which takes no writes", "name the primary"))
    if took > _SLOW_REDIS:
        hint = "a server waits 50 ms for it and then counts by itself: move them closer together"
        found.append(Finding("redis", Severity.WARN, f"{where} takes {took * 1000:.0f} ms to answer", hint))
    if off > _OFF:
        found.append(
            Finding("redis", Severity.WARN, f"the clock of {where} is {off:.0f} s off this one", "synchronise both (NTP)")
        )
    return found or [Finding("redis", Severity.OK, said)]


async def clamd(settings: Settings) -> Sequence[Finding]:
    """Whether it answers, how old its signatures are, and whether it takes what is sent."""
    wanted = getattr(settings, "antivirus", None)
    if wanted is None or wanted.address is None:
        return [Finding("clamd", Severity.SKIP, "not set: uploads are not scanned")]
    from interceptors.antivirus.clamav import Clamd, ScannerUnavailableError, TooLargeError  # noqa: PLC0415
    from interceptors.antivirus.scanner import Antivirus  # noqa: PLC0415

    limits = settings.limits
    largest = wanted.stream_max_bytes or max(limits.unary_audio_bytes, limits.stream_audio_bytes)
    try:
        scanner = Antivirus(Clamd(wanted.address, timeout=wanted.timeout), stream_max_bytes=min(largest, _TRIED))
    except ValueError as error:
        return [Finding("clamd", Severity.FAIL, str(error), "setting antivirus.address")]
    await scanner.refresh()
    state = scanner.state
    if not state.healthy:
        return [words.clamd_unavailable(wanted.address, state.reason, fail_open=wanted.fail_open)]
    there = words.clamd_there(wanted.address, state.version, state.signatures_age)
    found = [there] if there.state is not Severity.OK else []
    try:
        await scanner.probe()
    except TooLargeError:
        hint = f"raise StreamMaxLength in clamd.conf to {largest}, or lower antivirus.stream_max_bytes or the limits"
        found.append(Finding("clamd", Severity.FAIL, f"{wanted.address} does not take {min(largest, _TRIED)} bytes", hint))
    except ScannerUnavailableError as error:
        found.append(
            Finding("clamd", Severity.FAIL, f"{wanted.address}: {error}", "it answers, and does not scan: its log says why")
        )
    if wanted.fail_open:
        found.append(Finding("clamd", Severity.WARN, "uploads pass unscanned while it is away (antivirus.fail_open)", "unset it"))
    return found or [there]
