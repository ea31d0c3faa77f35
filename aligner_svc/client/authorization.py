"""What each attempt of a call shows of who calls: the current token, and a fresh one where the server refused it."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from aligner_svc.client.credentials import Auth, BearerToken, ClientCredentials, Metadata, bearer
from aligner_svc.client.errors import AlignerClientError, UnauthenticatedError
from aligner_svc.client.oauth import NoGrant, fetch
from aligner_svc.client.retry import Retry
from aligner_svc.client.token_cache import AsyncTokenCache, TokenCache

_RENEWABLE = frozenset({"TOKEN_EXPIRED", "CREDENTIALS_INVALID"})
"""Reasons of a refusal that a fresh token may answer: it ran out on the way, was revoked, or the issuer changed its keys."""


class Authorization:
    """One client's. Headers and not gRPC's call credentials: those go over TLS alone, and plaintext to loopback is allowed."""

    def __init__(self, auth: Auth | None) -> None:
        self._auth = auth
        self._tokens = TokenCache(partial(fetch, auth)) if isinstance(auth, ClientCredentials) else None

    def begin(self) -> Showing:
        """For one call."""
        return Showing(self._auth, self._tokens)

    def close(self) -> None:
        """Calls that wait for a token end. Idempotent."""
        if self._tokens is not None:
            self._tokens.close()


class Showing:
    """One call's. Not shared between calls."""

    def __init__(self, auth: Auth | None, tokens: TokenCache | None) -> None:
        self._auth = auth
        self._tokens = tokens
        self._sent = ""
        self._renewed = False

    def metadata(self, retry: Retry) -> Metadata:
        """The headers of the next attempt. Raises TokenError once `retry` is used up, DeadlineExceededError."""
        if self._tokens is None:
            return () if self._auth is None or isinstance(self._auth, ClientCredentials) else self._auth.metadata()
        while True:
            token = self._tokens.get(retry.remaining())
            if isinstance(token, str):
                self._sent = token
                return bearer(token)
            time.sleep(_wait(token, retry))

    def renews(self, failure: AlignerClientError) -> bool:
        """Whether to try again at once with a fresh token, after `failure`. Once a call."""
        if self._tokens is None or self._renewed or not _may_renew(failure):
            return False
        self._renewed = True
        return self._tokens.refuse(self._sent)


class AsyncAuthorization:
    """`Authorization` for an event loop."""

    def __init__(self, auth: Auth | None) -> None:
        self._auth = auth
        self._tokens = AsyncTokenCache(partial(fetch, auth)) if isinstance(auth, ClientCredentials) else None

    def begin(self) -> AsyncShowing:
        """For one call."""
        return AsyncShowing(self._auth, self._tokens)

    def close(self) -> None:
        """Calls that wait for a token end. Idempotent."""
        if self._tokens is not None:
            self._tokens.close()


class AsyncShowing:
    """`Showing` for an event loop."""

    def __init__(self, auth: Auth | None, tokens: AsyncTokenCache | None) -> None:
        self._auth = auth
        self._tokens = tokens
        self._sent = ""
        self._renewed = False

    async def metadata(self, retry: Retry) -> Metadata:
        """As `Showing.metadata`."""
        if self._tokens is None:
            match self._auth:
                case BearerToken() if callable(self._auth.token):
                    # The caller's function may read a file, or ask somebody.
                    return await asyncio.to_thread(self._auth.metadata)
                case None | ClientCredentials():
                    return ()
            return self._auth.metadata()
        while True:
            token = await self._tokens.get(retry.remaining())
            if isinstance(token, str):
                self._sent = token
                return bearer(token)
            await asyncio.sleep(_wait(token, retry))

    def renews(self, failure: AlignerClientError) -> bool:
        """As `Showing.renews`."""
        if self._tokens is None or self._renewed or not _may_renew(failure):
            return False
        self._renewed = True
        return self._tokens.refuse(self._sent)


def _may_renew(failure: AlignerClientError) -> bool:
    return isinstance(failure, UnauthenticatedError) and failure.reason in _RENEWABLE


def _wait(nothing: NoGrant, retry: Retry) -> float:
    error = nothing.exception()
    delay = retry.delay(error)
    if delay is None:
        raise error
    return delay
