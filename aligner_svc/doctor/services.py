"""The services the server uses: issuers, the key database, Redis, clamd."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.config.security import Issuer
from aligner_svc.doctor.files import readable_by_all
from aligner_svc.health import phrases
from aligner_svc.health.findings import Finding, Severity, fail, in_thread, ok, skip, warn
from interceptors.auth.jwt.jwk import read_keys
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.jwks_http import KeysHttp
from interceptors.quota.stores.redis_client import place

_SLOW_REDIS = 0.025
"""Seconds. A server waits for at most 50 ms and then counts by itself."""
_MAX_CLOCK_DIFFERENCE = 5.0
"""Seconds: quotas and tokens depend on the time."""


async def jwks(settings: Settings) -> Sequence[Finding]:
    """The keys of every issuer."""
    if "jwt" not in settings.auth.methods or not settings.jwt.issuers:
        return [skip("jwks", "tokens are not accepted")]
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
        published = read_keys(raw)
    except JwksError as error:
        return phrases.issuer_keys_missing(issuer.issuer, str(error))
    except OSError as error:
        why = (error.strerror or "input/output error").lower()
        return fail("jwks", f"{issuer.issuer}: {issuer.jwks_file}: {why}", "setting jwt.issuers")
    except ValueError:
        return fail("jwks", f"{issuer.issuer}: no JWK set at {source}", "setting jwt.issuers")
    if not published.keys:
        hint = "it needs RSA of 2048 to 8192 bits, P-256 or Ed25519 keys, each with a kid"
        why = f" ({published.ignored[0]})" if published.ignored else ""
        return fail("jwks", f"{issuer.issuer}: none of the keys at {source} can be used{why}", hint)
    found = f"{issuer.issuer}: {len(published.keys)} keys from {source}"
    if published.weak:
        return warn("jwks", f"{found}; weak: {'; '.join(published.weak)}", "tokens signed with these are refused: replace them")
    return ok("jwks", found)


async def keys(settings: Settings) -> Sequence[Finding]:
    """The pepper and the database of API keys."""
    if "api_key" not in settings.auth.methods:
        return [skip("keys", "API keys are not accepted")]
    from aligner_svc.wiring.api_keys import PepperError, read_pepper  # noqa: PLC0415
    from interceptors.auth.api_keys.database import FAULTS, Database, DatabaseUrlError, KeyStoreError, reason  # noqa: PLC0415

    found: list[Finding] = []
    try:
        await in_thread(lambda: read_pepper(settings.keys))
        if settings.keys.pepper is None:
            found += readable_by_all("keys", settings.keys.pepper_file.absolute())
    except PepperError as error:
        found.append(fail("keys", str(error), "the server does not start"))
    try:
        database = Database(settings.keys.database.get_secret_value())
    except DatabaseUrlError as error:
        return [*found, fail("keys", f"keys.database: {error}", "setting keys.database")]
    try:
        database.file_identity()  # fails if the file does not exist, which connecting would create
        level, count = await _level(database)
    except KeyStoreError as error:
        return [*found, fail("keys", str(error), "`aligner keys create` makes it, with the first key")]
    except FAULTS as error:
        return [*found, phrases.key_database_unavailable(str(database), reason(error))]
    if database.sqlite_file is not None:
        found += readable_by_all("keys", database.sqlite_file)
    newest = await in_thread(_newest)
    if level != newest:
        hint = "a server migrates it at its start; one that is older than its database does not start"
        return [*found, warn("keys", f"{database} is at level {level or 'none'}, this program's is {newest}", hint)]
    return [*found, ok("keys", f"{database}: {count} keys, level {level}")]


async def _level(database: Any) -> tuple[str, int]:
    """The migration of the database ("" before the first) and the number of its keys. Raises FAULTS."""
    from sqlalchemy import column, func, inspect, pool, select, table  # noqa: PLC0415

    from interceptors.auth.api_keys.schema import VERSION_TABLE, api_keys  # noqa: PLC0415

    engine = database.engine(3.0, poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            tables = set(await connection.run_sync(lambda it: inspect(it).get_table_names()))
            if not {VERSION_TABLE, api_keys.name} <= tables:
                return "", 0
            level = (await connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE)))).scalar()
            count = (await connection.execute(select(func.count()).select_from(api_keys))).scalar()
            return str(level or ""), int(count or 0)
    finally:
        await engine.dispose()


def _newest() -> str:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from interceptors.auth.api_keys import migrations  # noqa: PLC0415

    return str(ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head())


async def redis(settings: Settings) -> Sequence[Finding]:
    """Whether quotas can be counted there, and are not evicted."""
    if settings.quota.redis is None:
        return [skip("redis", "not set: each server counts by itself")]
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.exceptions import AuthenticationError, RedisError, ResponseError  # noqa: PLC0415

    url = settings.quota.redis.get_secret_value()
    try:
        where = place(url)
        client: Any = Redis.from_url(url, decode_responses=True, protocol=2)
    except ValueError:  # not quoted, as it may hold the password
        return [fail("redis", "quota.redis is not the URL of a Redis", "redis://[USER:PASSWORD@]HOST[:PORT][/DB]")]
    try:
        await client.ping()
        began = time.perf_counter()
        await client.ping()
        latency = time.perf_counter() - began
        seconds, micros = await client.time()
        information = await client.info()
    except AuthenticationError:
        return [phrases.redis_unusable(f"{where} rejects the user or the password")]
    except ResponseError:
        message = f"{where} answers, but does not allow this user PING, TIME and INFO"
        return [warn("redis", message, "its configuration could not be checked")]
    except (RedisError, OSError):
        return [phrases.redis_unavailable(where)]
    finally:
        with contextlib.suppress(Exception):
            await client.aclose()
    return judge_redis(where, information, latency, abs(time.time() - (seconds + micros / 1e6)))


def judge_redis(where: str, information: dict[str, Any], latency: float, clock_difference: float) -> list[Finding]:
    """Findings from the reply to INFO and two measurements in seconds."""
    policy = str(information.get("maxmemory_policy", "unknown"))
    found = []
    if policy not in {"noeviction", "unknown"}:
        hint = "set maxmemory-policy to noeviction: a caller whose counter is evicted gets its whole quota again"
        found.append(warn("redis", f"{where}: maxmemory-policy is {policy}", hint))
    if information.get("role") == "slave":
        found.append(fail("redis", f"{where} is a replica, which accepts no writes", "set the primary"))
    if latency > _SLOW_REDIS:
        hint = "a server waits for 50 ms and then counts by itself: move them closer together"
        found.append(warn("redis", f"{where} takes {latency * 1000:.0f} ms to answer", hint))
    if clock_difference > _MAX_CLOCK_DIFFERENCE:
        message = f"the clock of {where} differs by {clock_difference:.0f} s from this one"
        found.append(warn("redis", message, "synchronise both (NTP)"))
    version = information.get("redis_version", "unknown")
    return found or [ok("redis", f"{where}: version {version}, {latency * 1000:.1f} ms, maxmemory-policy {policy}")]


async def clamd(settings: Settings) -> Sequence[Finding]:
    """Whether it answers, how old its signatures are, and whether it accepts uploads of the maximum size."""
    antivirus = settings.antivirus
    if antivirus.address is None:
        return [skip("clamd", "not set: uploads are not scanned")]
    from interceptors.antivirus.clamav import Clamd, ScannerUnavailableError, TooLargeError  # noqa: PLC0415
    from interceptors.antivirus.scanner import Antivirus  # noqa: PLC0415

    limits = settings.limits
    max_bytes = antivirus.stream_max_bytes or max(limits.unary_audio_bytes, limits.stream_audio_bytes)
    try:
        scanner = Antivirus(Clamd(antivirus.address, timeout=antivirus.timeout), stream_max_bytes=max_bytes)
    except ValueError as error:
        return [fail("clamd", str(error), "setting antivirus.address")]
    await scanner.refresh()
    state = scanner.state
    if not state.healthy:
        return [phrases.clamd_unavailable(antivirus.address, state.reason, fail_open=antivirus.fail_open)]
    available = phrases.clamd_available(antivirus.address, state.version, state.signatures_age)
    found = [] if available.severity is Severity.OK else [available]
    try:
        await scanner.check_stream_limit()
    except TooLargeError:
        hint = f"raise StreamMaxLength in clamd.conf to {max_bytes}, or lower antivirus.stream_max_bytes or the limits"
        found.append(fail("clamd", f"{antivirus.address} does not accept {max_bytes} bytes", hint))
    except ScannerUnavailableError as error:
        found.append(fail("clamd", f"{antivirus.address}: {error}", "it answers, but does not scan: its log says why"))
    if antivirus.fail_open:
        found.append(warn("clamd", "uploads pass unscanned while clamd is unavailable (antivirus.fail_open)", "unset it"))
    return found or [available]
