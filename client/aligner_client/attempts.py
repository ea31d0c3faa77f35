"""The attempts of one call: its headers, the time left, and whether and when to try again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from aligner_client.auth.credentials import ApiKey, BearerToken, Metadata, bearer
from aligner_client.auth.token_cache import TokenCache
from aligner_client.errors import AlignerClientError, UnauthenticatedError, closed, from_rpc
from aligner_client.handshake import explain
from aligner_client.retry import Retry

_LOG = logging.getLogger("aligner_client")
_Call = TypeVar("_Call")

_RENEWABLE = frozenset({"TOKEN_EXPIRED", "CREDENTIALS_INVALID"})
"""Reasons of a refusal that a fresh token may cure: the token expired on the way, was revoked, or the issuer changed its keys."""


class Attempts:
    """Not shared between calls.

    Credentials are sent as headers and not as gRPC's call credentials, which only go over TLS: plaintext to loopback is allowed.
    """

    def __init__(
        self,
        metadata: Metadata,
        auth: BearerToken | ApiKey | TokenCache | None,
        retry: Retry,
        *,
        secure: bool,
        certificate: bool | None,
        is_closed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._metadata = metadata
        self._auth = auth
        self._retry = retry
        self._is_closed = is_closed
        self._secure = secure
        self._certificate = certificate
        self._sent_token = ""
        self._renewed = False

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._is_closed()

    def call(self, method: Callable[..., _Call], request: object, metadata: Metadata) -> _Call:
        """Begin an attempt; of a blocking unary call, wait for its end. Raises CallCancelledError if the client is closed."""
        if self.is_closed:
            raise closed()
        try:
            return method(request, timeout=self.remaining(), metadata=metadata)
        except (ValueError, grpc.aio.UsageError):  # what a closed channel raises
            if self.is_closed:
                raise closed() from None
            raise

    def remaining(self) -> float | None:
        """Seconds left for the next attempt; None: no deadline."""
        return self._retry.remaining()

    def metadata(self) -> Metadata:
        """The headers of the next attempt, with a current token.

        Raises TokenError once the retries are used up, DeadlineExceededError, and what a caller's own token function raises.
        """
        if not isinstance(self._auth, TokenCache):
            return self._metadata if self._auth is None else self._metadata + self._auth.metadata()
        while True:
            token = self._auth.get(self.remaining())
            if isinstance(token, str):
                return self._with_token(token)
            time.sleep(self._delay(token.exception()))

    async def async_metadata(self) -> Metadata:
        """`metadata` for an event loop; a caller's own token function runs on a thread, as it may block."""
        if isinstance(self._auth, BearerToken) and callable(self._auth.token):
            return self._metadata + await asyncio.to_thread(self._auth.metadata)
        if not isinstance(self._auth, TokenCache):
            return self.metadata()
        while True:
            token = await self._auth.async_get(self.remaining())
            if isinstance(token, str):
                return self._with_token(token)
            await asyncio.sleep(self._delay(token.exception()))

    def failed(self, error: grpc.RpcError, *, final: bool = False) -> float:
        """Count a failed attempt. Seconds to wait before the next; raises the typed error where there is none, or if `final`."""
        failure = from_rpc(error)
        explain(failure, secure=self._secure, certificate=self._certificate)
        if final:
            raise failure from error
        delay = 0.0 if self._renews(failure) else self._delay(failure, error)
        _LOG.info("attempt failed, another in %.2f s: %s", delay, failure)
        return delay

    def _with_token(self, token: str) -> Metadata:
        self._sent_token = token
        return self._metadata + bearer(token)

    def _renews(self, failure: AlignerClientError) -> bool:
        """Whether to try again at once with a fresh token; once a call."""
        if not isinstance(self._auth, TokenCache) or self._renewed:
            return False
        if not isinstance(failure, UnauthenticatedError) or failure.reason not in _RENEWABLE:
            return False
        self._renewed = True
        return self._auth.refuse(self._sent_token)

    def _delay(self, failure: AlignerClientError, cause: grpc.RpcError | None = None) -> float:
        delay = self._retry.delay(failure)
        if delay is None:
            raise failure from cause
        return delay
