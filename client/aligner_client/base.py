"""What the blocking and the asyncio client share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc

from aligner_client.attempts import Attempts
from aligner_client.auth.credentials import Auth, ClientCredentials, Tls
from aligner_client.auth.oauth import fetch
from aligner_client.auth.token_cache import TokenCache
from aligner_client.channel import DEFAULT_TARGET, Transport, choose_transport
from aligner_client.errors import ResourceExhaustedError
from aligner_client.retry import RetryPolicy
from aligner_client.source import WHOLE_BYTES


class ClientBase(ABC):
    """Takes the arguments documented at `Aligner`."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        tls: Tls | None = None,
        auth: Auth | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        retry: RetryPolicy | None = None,
        options: Sequence[tuple[str, int | str]] = (),
        interceptors: Sequence[Any] = (),
        compression: grpc.Compression | None = None,
        load_balancing: str | None = None,
    ) -> None:
        self._metadata = tuple(metadata)
        self._auth = TokenCache(partial(fetch, auth)) if isinstance(auth, ClientCredentials) else auth
        self._policy = retry or RetryPolicy()
        self._secure = tls is not None or credentials is not None
        self._certificate = None if tls is None else tls.certificate is not None
        self._closed = False
        self._whole_bytes = WHOLE_BYTES
        self._interceptors = tuple(interceptors)
        self._open(
            choose_transport(
                target,
                credentials,
                tls,
                auth,
                self._metadata,
                options=options,
                compression=compression,
                load_balancing=load_balancing,
            )
        )

    @abstractmethod
    def _open(self, transport: Transport) -> None:
        """Make the channel and the stub."""

    def _begin(self, timeout: float | None) -> Attempts:
        return Attempts(
            self._metadata,
            self._auth,
            self._policy.begin(timeout),
            secure=self._secure,
            certificate=self._certificate,
            is_closed=lambda: self._closed,
        )

    def _end_waits(self) -> None:
        """Begin no more calls, and end those that wait for a token."""
        self._closed = True
        if isinstance(self._auth, TokenCache):
            self._auth.close()


def is_too_large(error: ResourceExhaustedError) -> bool:
    """Whether it may be the size of the message that was refused; far over the limit the transport does, without a reason."""
    return error.reason in {"AUDIO_TOO_LARGE", "REQUEST_TOO_LARGE", "RESOURCE_EXHAUSTED"}
