"""What the chain asks of an authentication method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from interceptors.calls.principal import Verdict

if TYPE_CHECKING:
    from interceptors.auth.jwt.jwks import KeySource

AuthContext: TypeAlias = Mapping[str, Iterable[bytes]]
"""What gRPC knows of the connection's TLS peer."""


class CountedCache(Protocol):
    """A cache whose use is counted since the start."""

    hits: int
    misses: int

    def __len__(self) -> int:
        """Entries now."""


@dataclass(frozen=True, slots=True)
class MethodReport:
    """What a method reports to metrics and readiness; the defaults fit one without cache and outside services."""

    caches: Mapping[str, CountedCache] = field(default_factory=dict)
    """By the label of their metrics."""
    key_sources: Mapping[str, KeySource] = field(default_factory=dict)
    """Signing keys by issuer."""
    unavailable: Callable[[], bool] = lambda: False
    """Whether the database behind it does not answer."""


class AuthMethod(Protocol):
    """One way for a client to prove its principal. One instance serves every call."""

    header: str
    """The metadata key, in lower case, that carries the credential; "" if the TLS connection does."""
    hint: str
    """What to send, for a client that sent no credential: "an API key (x-api-key: ...)"."""

    @property
    def report(self) -> MethodReport:
        """For metrics and readiness."""
        return MethodReport()

    async def start(self) -> None:
        """Before the server listens. Fails only for mistakes in the configuration, not for a service that is unavailable."""

    async def close(self) -> None:
        """Idempotent."""

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict | None:
        """Judge one call's credential: the value of `header`, or "" for one in `connection`; None if that has none."""
