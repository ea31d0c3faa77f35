"""OAuth 2.0 client credentials: one request to the token endpoint (RFC 6749, sections 4.4 and 5)."""

# ruff: noqa: PLC0415 - httpx costs 100 ms to import, and few clients need it

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

import grpc

from aligner_client.auth.credentials import ClientCredentials, is_loopback_host, is_token
from aligner_client.errors import TokenError

if TYPE_CHECKING:
    import httpx

FETCH_SECONDS = 10.0
"""Timeout of a request, from the look-up of the name to the last byte."""
MAX_ANSWER_BYTES = 64 * 1024
UNSTATED_LIFETIME = 60.0
"""Seconds a token is used if the endpoint does not give its lifetime."""
MAX_LIFETIME = 86_400.0
"""Seconds after which any token is renewed."""

_ERROR_WORD = re.compile(r"[a-z_]{1,64}")
_TRANSIENT_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_TRANSIENT_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Grant:
    """A token and its lifetime in seconds from the request."""

    token: str = field(repr=False)
    lifetime: float


@dataclass(frozen=True, slots=True)
class NoGrant:
    """Why there is no token; the fields are those of TokenError. `transient`: another request may succeed."""

    message: str
    transient: bool
    error: str = ""
    retry_after: float | None = None

    def exception(self) -> TokenError:
        """A new exception for each caller, as they may be on several threads."""
        code = grpc.StatusCode.UNAVAILABLE if self.transient else grpc.StatusCode.UNAUTHENTICATED
        reason = "TOKEN_ENDPOINT_UNAVAILABLE" if self.transient else "TOKEN_REFUSED"
        return TokenError(
            code, self.message, reason=reason, error=self.error, retry_after=self.retry_after, retryable=self.transient
        )


async def fetch(spec: ClientCredentials) -> Grant | NoGrant:
    """Request a token once. Of the endpoint's answer only the OAuth error word gets into a message. Blocks for 0.1 s at first."""
    import httpx

    try:
        context = _tls(spec)
    except (OSError, ValueError):
        return NoGrant("the CA file of the token endpoint cannot be used", transient=False)
    try:
        return await asyncio.wait_for(_request(spec, context), FETCH_SECONDS)
    except (asyncio.TimeoutError, TimeoutError, httpx.TimeoutException):
        return NoGrant("the token endpoint did not answer in time", transient=True)
    except (httpx.TransportError, OSError) as error:
        if _is_untrusted(error):
            return NoGrant("the token endpoint's certificate is not trusted", transient=False)
        return NoGrant("the token endpoint cannot be reached", transient=True)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return NoGrant("the token endpoint's answer is not HTTP, or its URL is not valid", transient=False)


async def _request(spec: ClientCredentials, context: ssl.SSLContext | bool) -> Grant | NoGrant:
    import httpx

    form: dict[str, Any] = {"grant_type": "client_credentials"}
    if spec.scope:
        form["scope"] = " ".join(spec.scope)
    if spec.audience:
        form["audience"] = spec.audience
    if spec.resource:
        form["resource"] = list(spec.resource)
    # Identity: a compressed answer could expand beyond MAX_ANSWER_BYTES.
    headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "aligner-client"}
    if spec.method == "client_secret_post":
        form |= {"client_id": spec.client_id, "client_secret": spec.client_secret}
    else:
        headers["authorization"] = _basic(spec.client_id, spec.client_secret)
    # A proxy from the environment would receive the secret for a loopback endpoint in clear.
    proxies = not is_loopback_host(urlsplit(spec.token_url).hostname or "")
    async with (
        httpx.AsyncClient(verify=context, follow_redirects=False, timeout=FETCH_SECONDS, trust_env=proxies) as client,
        client.stream("POST", spec.token_url, data=form, headers=headers) as response,
    ):
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                return NoGrant("the token endpoint's answer is too long", transient=False)
        return _read(spec, response, bytes(body))


def _read(spec: ClientCredentials, response: httpx.Response, body: bytes) -> Grant | NoGrant:
    status = response.status_code
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    fields: dict[str, Any] = answer if isinstance(answer, dict) else {}
    if status == 200:
        return _grant(fields)
    error = fields.get("error")
    # Only a word of the protocol is shown; anything else could be an echo of the request.
    if not isinstance(error, str) or not _ERROR_WORD.fullmatch(error) or spec.client_secret in error:
        error = ""
    if 300 <= status < 400:
        return NoGrant("the token endpoint redirects, which is not followed: set the URL it redirects to", transient=False)
    transient = status >= 500 or status in _TRANSIENT_STATUS or error in _TRANSIENT_ERRORS
    why = error or f"status {status}"
    if transient:
        wait = response.headers.get("retry-after", "")
        seconds = float(wait) if wait.isascii() and wait.isdecimal() else None
        return NoGrant(f"the token endpoint cannot give a token now: {why}", True, error, seconds)
    return NoGrant(f"the token endpoint gives no token: {why}", False, error)


def _grant(fields: dict[str, Any]) -> Grant | NoGrant:
    token, kind = fields.get("access_token"), fields.get("token_type")
    if not isinstance(token, str) or not is_token(token):
        return NoGrant("the token endpoint's answer holds no token", transient=False)
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return NoGrant("the token endpoint gave a token that is not a bearer token", transient=False)
    lifetime = _seconds(fields.get("expires_in"))
    if lifetime is not None and lifetime <= 0:
        return NoGrant("the token endpoint gave an expired token", transient=False)
    return Grant(token, min(MAX_LIFETIME, UNSTATED_LIFETIME if lifetime is None else lifetime))


def _seconds(value: object) -> float | None:
    """`expires_in` as a number, or as a string like some servers send it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _basic(client_id: str, secret: str) -> str:
    """Form-urlencoded first (RFC 6749, section 2.3.1), which httpx.BasicAuth does not do."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _tls(spec: ClientCredentials) -> ssl.SSLContext | bool:
    """The `verify` argument of httpx. Raises OSError and ValueError for a CA file that cannot be used."""
    import httpx

    if urlsplit(spec.token_url).scheme == "http":
        return False  # nothing to verify: do not read the CAs
    if spec.ca is not None:
        return ssl.create_default_context(cafile=spec.ca)
    return httpx.create_ssl_context()


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
