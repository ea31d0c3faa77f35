"""Callers with an access token: read, verified with its issuer's keys, remembered, judged anew at every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interceptors.auth.jwt.access_token import LONGEST, TokenCheck, TokenRules, Unverified, Verified, judge, read, verify
from interceptors.auth.jwt.jwk import Key, canonical
from interceptors.auth.jwt.jwks import KeySource
from interceptors.auth.jwt.token_cache import TokenCache, token_digest
from interceptors.auth.method import AuthContext, AuthMethod, MethodReport
from interceptors.auth.mtls import thumbprint
from interceptors.calls.principal import Rejected, Undecided, Verdict


@dataclass(frozen=True, slots=True)
class _Issuer:
    rules: TokenRules
    keys: KeySource


class JwtAuthenticator(AuthMethod):
    """Believes the issuers it is given, each by its own keys alone. Raises ValueError when one is given twice.

    `cache`: verified tokens that are remembered. `now`: Unix seconds.
    """

    header = "authorization"
    hint = "a bearer token (authorization: Bearer ...)"

    def __init__(
        self, issuers: Sequence[tuple[TokenRules, KeySource]], *, cache: int, now: Callable[[], float] = time.time
    ) -> None:
        self._issuers = {rules.issuer: _Issuer(rules, keys) for rules, keys in issuers}
        if len(self._issuers) != len(issuers):
            raise ValueError("an issuer is configured twice")
        self._cache = TokenCache(cache)
        self._now = now

    @property
    def report(self) -> MethodReport:
        """See AuthMethod."""
        return MethodReport({"tokens": self._cache}, {name: issuer.keys for name, issuer in self._issuers.items()})

    async def start(self) -> None:
        """Get the keys. Raises KeysError for a file without any.

        Waits for those of a URL for two seconds at most: until they come, the tokens of their issuer are Undecided.
        """
        try:
            await asyncio.gather(*(issuer.keys.start() for issuer in self._issuers.values()))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(issuer.keys.close() for issuer in self._issuers.values()))

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict:
        """See AuthMethod."""
        scheme, _, token = credential.partition(" ")
        if scheme.lower() != "bearer":
            return Rejected("scheme_unknown")
        return await self.verify(token.strip(" "), thumbprint(connection))

    async def verify(self, token: str, thumbprint: str | None) -> Verdict:
        """Whose token it is. `thumbprint`: base64url of the SHA-256 of the DER of the caller's certificate, None without one.

        Waits for the network only when the issuer's key is unknown, and that seldom: see UrlKeys.
        """
        if len(token) > LONGEST:
            return Rejected(TokenCheck.TOKEN_TOO_LARGE)
        if not token.isascii():
            return Rejected(TokenCheck.MALFORMED)
        digest = token_digest(token)
        verified: Verified | Rejected | Undecided | None = self._remembered(digest)
        if verified is not None:
            self._cache.hits += 1
        else:
            self._cache.misses += 1
            verified = await self._verified(token)
            if isinstance(verified, Verified):
                self._cache.put(digest, verified)
        if not isinstance(verified, Verified):
            return verified
        verdict = judge(verified, self._issuers[verified.issuer].rules, thumbprint, self._now())
        if isinstance(verdict, Rejected) and verdict.expired:
            self._cache.drop(digest)
        return verdict

    def _remembered(self, digest: bytes) -> Verified | Undecided | None:
        verified = self._cache.get(digest)
        if verified is None:
            return None
        keys = self._issuers[verified.issuer].keys
        if keys.trouble:
            return Undecided(keys.trouble)
        if keys.find(verified.key.kid) == verified.key:
            return verified
        self._cache.drop(digest)  # its issuer has withdrawn the key, or put another in its place
        return None

    async def _verified(self, token: str) -> Verified | Rejected | Undecided:
        unverified = read(token)
        if isinstance(unverified, Rejected):
            return unverified
        issuer = self._issuers.get(unverified.issuer)
        if issuer is None:
            return Rejected(TokenCheck.ISSUER)
        if canonical(unverified.algorithm) not in issuer.rules.algorithms:  # before it can make anybody look for a key
            return Rejected(TokenCheck.ALGORITHM)
        key = await self._key(unverified, issuer.keys)
        return verify(unverified, issuer.rules, key) if isinstance(key, Key) else key

    async def _key(self, unverified: Unverified, keys: KeySource) -> Key | Rejected | Undecided:
        if keys.trouble:
            return Undecided(keys.trouble)
        key = keys.find(unverified.key_id)
        if key is not None:
            return key
        await keys.seek()
        key = keys.find(unverified.key_id)
        if key is not None:
            return key
        # While its keys cannot be got, an issuer may have signed with one that is not known here yet.
        return Undecided("keys_unavailable") if keys.last_error else Rejected(TokenCheck.SIGNING_KEY)
