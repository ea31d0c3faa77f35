"""An issuer's keys over HTTP: where they are, and what they are."""

from __future__ import annotations

import asyncio
from urllib.parse import SplitResult, urlsplit

import httpx

from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.strict_json import strict_object

TIMEOUT = 5.0
"""Seconds for all of it: a caller with an unknown key waits that long."""
LARGEST = 1024 * 1024
"""Bytes of a document. Real ones have 1 to 20 KB."""
_HEADERS = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}
"""Nothing packed: 1 MiB of gzip may be 1 GiB."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class KeysHttp:
    """`url`: where the JWK set is; None: the issuer's metadata says it."""

    def __init__(self, issuer: str, url: str | None) -> None:
        self._issuer = issuer
        self._url = url
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def fetch(self) -> bytes:
        """The set as it was sent. Raises KeysError."""
        try:
            async with asyncio.timeout(TIMEOUT):
                # Discovered anew each time: an issuer that moves its keys may leave the old ones where they were.
                return await self._got(self._url or await self._discovered())
        except TimeoutError:
            raise JwksError("timeout", f"no answer within {TIMEOUT:g} s") from None

    async def close(self) -> None:
        """Idempotent."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def _discovered(self) -> str:
        """OpenID Connect Discovery, and RFC 8414 for an issuer that answers to the former with an HTTP error."""
        issuer = urlsplit(self._issuer)
        path = issuer.path.rstrip("/")
        try:
            raw = await self._got(_at(issuer, f"{path}/.well-known/openid-configuration"))
        except JwksError as error:
            if error.check != "http_status":
                raise
            raw = await self._got(_at(issuer, f"/.well-known/oauth-authorization-server{path}"))
        try:
            metadata = strict_object(raw)
        except ValueError:
            raise JwksError("malformed", "the metadata is no JSON object") from None
        # RFC 8414, 3.3: metadata that anyone else's server could have written is not to be used.
        if metadata.get("issuer") != self._issuer:
            raise JwksError("issuer_mismatch", "the metadata is of another issuer")
        url = metadata.get("jwks_uri")
        if not isinstance(url, str):
            raise JwksError("malformed", "the metadata has no jwks_uri")
        if not _allowed(url) or (_scheme(self._issuer) == "https" and _scheme(url) != "https"):
            # Plain HTTP is for an issuer on this machine; one elsewhere has no business sending us to what listens here.
            raise JwksError("url_not_allowed", "the jwks_uri in the metadata is not an https URL")
        return url

    async def _got(self, url: str) -> bytes:
        if not _allowed(url):
            raise JwksError("url_not_allowed", "an https URL is needed (http on localhost alone)")
        try:
            async with self._client(url).stream("GET", url, headers=_HEADERS) as response:
                if response.status_code != 200:
                    raise JwksError("http_status", f"{_shown(url)} answered {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_raw():  # what is packed all the same stays so, and is no JSON
                    body += chunk
                    if len(body) > LARGEST:
                        raise JwksError("too_large", f"{_shown(url)} answered with more than {LARGEST} bytes")
                return bytes(body)
        except httpx.TimeoutException:
            raise JwksError("timeout", f"{_shown(url)} did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise JwksError("unreachable", f"{_shown(url)}: {type(error).__name__}") from None

    def _client(self, url: str) -> httpx.AsyncClient:
        """Made once for each kind: a TLS context takes 20 ms. A proxy of the environment has no business on loopback."""
        loopback = _host(url) in _LOOPBACK
        # No redirects: they could lead to plain HTTP, or to what only this machine can reach.
        if loopback not in self._clients:
            self._clients[loopback] = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=not loopback)
        return self._clients[loopback]


def _allowed(url: str) -> bool:
    """https, or http on loopback: whoever can change the keys on their way can sign as the issuer."""
    return bool(_host(url)) and (_scheme(url) == "https" or (_scheme(url) == "http" and _host(url) in _LOOPBACK))


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:  # brackets that are no IPv6 address
        return ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _shown(url: str) -> str:
    """For the log: what a URL may carry besides its place stays out, and so do characters that are none of a URL's."""
    return ascii(f"{_scheme(url)}://{_host(url)}{urlsplit(url).path}")


def _at(issuer: SplitResult, path: str) -> str:
    return issuer._replace(path=path, query="", fragment="").geturl()
