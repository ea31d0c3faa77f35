"""Fetches an issuer's keys over HTTP, and discovers their URL."""

from __future__ import annotations

import asyncio
from urllib.parse import SplitResult, urlsplit

import httpx

from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.strict_json import strict_object

TIMEOUT = 5.0
"""Seconds for discovery and fetch together: a caller whose key is unknown waits that long."""
MAX_BYTES = 1024 * 1024
"""Size limit of a document. Real ones have 1 to 20 KB."""
_HEADERS = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}
"""No compression: 1 MiB of gzip may be 1 GiB."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class KeysHttp:
    """`url` of the JWK set; None: it is in the issuer's metadata."""

    def __init__(self, issuer: str, url: str | None) -> None:
        self._issuer = issuer
        self._url = url
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def fetch(self) -> bytes:
        """Fetch the JWK set, unparsed. Raises JwksError."""
        try:
            async with asyncio.timeout(TIMEOUT):
                # Discovered every time: an issuer that moves its keys may leave the old ones in place.
                return await self._get(self._url or await self._discover())
        except TimeoutError:
            raise JwksError("timeout", f"no answer within {TIMEOUT:g} s") from None

    async def close(self) -> None:
        """Idempotent."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def _discover(self) -> str:
        """By OpenID Connect Discovery, or by RFC 8414 for an issuer that answers the former with an HTTP error."""
        issuer = _split(self._issuer)._replace(query="", fragment="")
        path = issuer.path.rstrip("/")
        try:
            raw = await self._get(issuer._replace(path=f"{path}/.well-known/openid-configuration").geturl())
        except JwksError as error:
            if error.check != "http_status":
                raise
            raw = await self._get(issuer._replace(path=f"/.well-known/oauth-authorization-server{path}").geturl())
        try:
            metadata = strict_object(raw)
        except ValueError:
            raise JwksError("malformed", "the metadata is not a JSON object") from None
        # RFC 8414, 3.3: metadata of another issuer must not be used, since another party may have written it.
        if metadata.get("issuer") != self._issuer:
            raise JwksError("issuer_mismatch", "the metadata is of another issuer")
        url = metadata.get("jwks_uri")
        if not isinstance(url, str):
            raise JwksError("malformed", "the metadata has no jwks_uri")
        if not _allowed(url) or (issuer.scheme == "https" and _split(url).scheme != "https"):
            # Plain HTTP is for an issuer on this machine; a remote one must not direct requests to local services.
            raise JwksError("url_not_allowed", "the jwks_uri in the metadata is not an https URL")
        return url

    async def _get(self, url: str) -> bytes:
        if not _allowed(url):
            raise JwksError("url_not_allowed", "an https URL is needed (http is for localhost only)")
        parts = _split(url)
        # For log lines: without user, password and query, and with unusual characters escaped.
        shown = ascii(f"{parts.scheme}://{parts.hostname}{parts.path}")
        loopback = parts.hostname in _LOOPBACK
        if loopback not in self._clients:
            # Made once of each kind, as a TLS context takes 20 ms. Requests to loopback bypass the environment's proxy.
            # No redirects: they could lead to plain HTTP, or to services that only this machine can reach.
            self._clients[loopback] = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=not loopback)
        try:
            async with self._clients[loopback].stream("GET", url, headers=_HEADERS) as response:
                if response.status_code != 200:
                    raise JwksError("http_status", f"{shown} answered {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_raw():  # if compressed nevertheless it stays so, and is not JSON
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise JwksError("too_large", f"{shown} answered with more than {MAX_BYTES} bytes")
                return bytes(body)
        except httpx.TimeoutException:
            raise JwksError("timeout", f"{shown} did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise JwksError("unreachable", f"{shown}: {type(error).__name__}") from None


def _allowed(url: str) -> bool:
    """https, or http on loopback: anyone who can change keys in transit could sign as the issuer."""
    parts = _split(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets around something other than an IPv6 address
        return SplitResult("", "", "", "", "")
