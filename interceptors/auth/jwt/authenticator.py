"""Authenticates callers by access token: parsed, verified with the issuer's keys, cached, and judged again at every call."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence

from interceptors.auth.jwt.access_token import MAX_LENGTH, TokenCheck, TokenRules, Verified, judge, read, verify
from interceptors.auth.jwt.jwks import KeySource
from interceptors.auth.lru import LruCache
from interceptors.auth.method import AuthContext, AuthMethod, MethodReport
from interceptors.auth.mtls import thumbprint
from interceptors.calls.principal import Rejected, Undecided, Verdict


class JwtAuthenticator(AuthMethod):
    """Trusts the given issuers, each for tokens signed with its own keys only.

    `cache`: number of verified tokens to cache. `now`: Unix seconds. Raises ValueError if an issuer is given twice.
    """

    header = "authorization"
    hint = "a bearer token (authorization: Bearer ...)"

    def __init__(
        self, issuers: Sequence[tuple[TokenRules, KeySource]], *, cache: int, now: Callable[[], float] = time.time
    ) -> None:
        self._rules = {rules.issuer: rules for rules, _ in issuers}
        self._sources = {rules.issuer: keys for rules, keys in issuers}
        if len(self._sources) != len(issuers):
            raise ValueError("an issuer is configured twice")
        # By the SHA-256 of a token: a memory dump contains no token that could be replayed.
        self._cache: LruCache[bytes, Verified] = LruCache(cache)
        self._now = now

    @property
    def report(self) -> MethodReport:
        """See AuthMethod."""
        return MethodReport({"tokens": self._cache}, self._sources)

    async def start(self) -> None:
        """Get the keys. Raises JwksError for a file without usable keys.

        Waits at most two seconds for the keys of a URL; until they arrive, the tokens of that issuer are Undecided.
        """
        try:
            await asyncio.gather(*(keys.start() for keys in self._sources.values()))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(keys.close() for keys in self._sources.values()))

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict:
        """See AuthMethod."""
        scheme, _, token = credential.partition(" ")
        if scheme.lower() != "bearer":
            return Rejected("scheme_unknown")
        return await self.verify(token.strip(" "), thumbprint(connection))

    async def verify(self, token: str, thumbprint: str | None) -> Verdict:
        """Judge a token.

        `thumbprint`: base64url of the SHA-256 of the client certificate in DER, None without one. Waits for the network
        only if the signing key is unknown, at most once per cooldown: see UrlKeys.
        """
        if len(token) > MAX_LENGTH:
            return Rejected(TokenCheck.TOKEN_TOO_LARGE)
        if not token.isascii():
            return Rejected(TokenCheck.MALFORMED)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        verified: Verified | Rejected | Undecided | None = self._cache.get(digest)
        if isinstance(verified, Verified):
            keys = self._sources[verified.issuer]
            if keys.trouble:
                verified = Undecided(keys.trouble)
            elif keys.find(verified.key.kid) != verified.key:  # the issuer has withdrawn or replaced the key
                self._cache.drop(digest)
                verified = None
        if verified is not None:
            self._cache.hits += 1
        else:
            self._cache.misses += 1
            verified = await self._verify(token)
            if isinstance(verified, Verified):
                self._cache.put(digest, verified)
        if not isinstance(verified, Verified):
            return verified
        verdict = judge(verified, self._rules[verified.issuer], thumbprint, self._now())
        if isinstance(verdict, Rejected) and verdict.expired:
            self._cache.drop(digest)
        return verdict

    async def _verify(self, token: str) -> Verified | Rejected | Undecided:
        unverified = read(token)
        if isinstance(unverified, Rejected):
            return unverified
        rules = self._rules.get(unverified.issuer)
        if rules is None:
            return Rejected(TokenCheck.ISSUER)
        refused = rules.refused(unverified)
        if refused is not None:  # before an unknown kid can cause a request
            return Rejected(refused)
        keys = self._sources[unverified.issuer]
        if keys.trouble:
            return Undecided(keys.trouble)
        key = keys.find(unverified.key_id)
        if key is None:
            await keys.refresh()
            key = keys.find(unverified.key_id)
        if key is not None:
            return verify(unverified, rules, key)
        # While fetching fails, the token may be signed with a new key that is not known here yet.
        return Undecided("keys_unavailable") if keys.last_error else Rejected(TokenCheck.SIGNING_KEY)
