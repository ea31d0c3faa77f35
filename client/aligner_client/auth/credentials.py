"""The credentials that callers pass as `tls=` and `auth=`."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from os import PathLike
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import grpc

Metadata = tuple[tuple[str, str], ...]

AUTHORIZATION = "authorization"
API_KEY_HEADER = "x-api-key"

# What a header can carry, but blanks: a parser would take one for the end of the token.
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# RFC 6749, section 3.3.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class CredentialsError(ValueError):
    """Credentials that are not valid, or must not be used like this. The message never holds a secret."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the server, with the client's own certificate if the server requires one (mTLS). Files are PEM.

    They are read when a client is made: make a new client when the certificate is renewed.
    """

    ca: str | PathLike[str] | None = None
    """Trusted CAs; None: the public ones that come with gRPC."""
    certificate: str | PathLike[str] | None = None
    """The client's certificate, followed by the chain up to its CA."""
    key: str | PathLike[str] | None = None
    """Its private key, unencrypted."""
    server_name: str | None = None
    """The name expected in the server's certificate; None: the host of the target."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise CredentialsError("certificate and key must be given together")
        if self.server_name is not None and not self.server_name:
            raise CredentialsError("server_name is empty")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises OSError for a file that cannot be read, CredentialsError for one with the wrong contents.

        Checked here, because gRPC would report a wrong file as a server that cannot be reached.
        """
        roots = None if self.ca is None else read_ca(self.ca)
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(roots)
        certificate, key = Path(self.certificate).read_bytes(), Path(self.key).read_bytes()
        _check_pair(certificate, str(self.certificate), key, str(self.key))
        return grpc.ssl_channel_credentials(roots, key, certificate)

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """The channel options that belong to the credentials."""
        return () if self.server_name is None else (("grpc.ssl_target_name_override", self.server_name),)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token sent as `authorization: Bearer <token>`: the token, or a function that gives the current one.

    The function is called for every attempt of every call, possibly on several threads at once (by AsyncAligner on a
    thread of the default executor); the client's caller gets what it raises.
    """

    token: str | Callable[[], str] = field(repr=False)

    def __post_init__(self) -> None:
        if not callable(self.token):
            _check_token(self.token)

    def metadata(self) -> Metadata:
        """The header with the current token. Raises CredentialsError for an invalid token, and what the function raises."""
        if callable(self.token):
            return bearer(_check_token(self.token()))
        return bearer(self.token)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key sent as `x-api-key: <key>`."""

    key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _PRINTABLE.fullmatch(self.key):
            raise CredentialsError("the API key is empty, or has blanks or characters that a header cannot carry")

    def metadata(self) -> Metadata:
        """The header with the key."""
        return ((API_KEY_HEADER, self.key),)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """OAuth 2.0 client credentials (RFC 6749, section 4.4): tokens are fetched when needed, cached, and renewed in time."""

    token_url: str
    """The token endpoint: https, or http on loopback. Redirects are not followed."""
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | Sequence[str] = ()
    audience: str | None = None
    """Sent as `audience`; some providers require it to name the service the token is for."""
    resource: str | Sequence[str] = ()
    """Sent as `resource` (RFC 8707), for the same purpose."""
    method: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    """Where the secret is sent: in the authorization header, as RFC 6749 prefers, or in the form."""
    ca: str | PathLike[str] | None = None
    """PEM file of the CAs trusted for the token endpoint; None: the public ones."""

    def __post_init__(self) -> None:
        if find_spec("httpx") is None:
            raise CredentialsError("tokens are fetched with httpx, which is not installed: pip install 'aligner-client[oauth]'")
        _check_url(self.token_url)
        if not self.client_id or not self.client_secret:
            raise CredentialsError("client_id and client_secret must both be given")
        scope = tuple(self.scope.split() if isinstance(self.scope, str) else self.scope)
        if not all(_SCOPE.fullmatch(one) for one in scope):
            raise CredentialsError("a scope has characters that are not allowed (RFC 6749, section 3.3)")
        object.__setattr__(self, "scope", scope)
        object.__setattr__(self, "resource", (self.resource,) if isinstance(self.resource, str) else tuple(self.resource))
        if self.method not in {"client_secret_basic", "client_secret_post"}:
            raise CredentialsError("method must be client_secret_basic or client_secret_post")
        if self.ca is not None:
            read_ca(self.ca)


Auth = BearerToken | ApiKey | ClientCredentials


def bearer(token: str) -> Metadata:
    """The header of a token."""
    return ((AUTHORIZATION, f"Bearer {token}"),)


def is_token(value: object) -> bool:
    """Whether `value` is a token that a header can carry."""
    return isinstance(value, str) and _PRINTABLE.fullmatch(value) is not None


def is_loopback_host(host: str) -> bool:
    """Whether the host of a URL or a target is this machine: data sent there does not leave it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_ca(path: str | PathLike[str]) -> bytes:
    """The PEM certificates of a file. Raises OSError, and CredentialsError if it holds none."""
    data = Path(path).read_bytes()
    try:
        # Bundles have comments between the certificates, in any encoding.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise CredentialsError(f"{path} holds no PEM certificates") from None
    return data


def _check_token(token: str) -> str:
    if not is_token(token):
        raise CredentialsError("the token is empty, or has blanks or characters that are not allowed; give it without 'Bearer'")
    return token


def _check_url(url: str) -> None:
    # No message quotes the URL, as it may hold the secret.
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise CredentialsError("token_url is not a URL") from None
    if not host or parts.scheme not in {"http", "https"}:
        raise CredentialsError("token_url is not an https URL")
    if parts.username is not None or parts.password is not None:
        raise CredentialsError("token_url must not hold a user or a password: give client_id and client_secret")
    if parts.fragment:
        raise CredentialsError("token_url must not have a fragment")
    if parts.scheme == "http" and not is_loopback_host(host):
        raise CredentialsError("token_url must be https: the secret would be sent in clear (http is allowed on loopback only)")


def _check_pair(certificate: bytes, certificate_name: str, key: bytes, key_name: str) -> None:
    """Raise CredentialsError unless certificate and key are PEM and belong together."""
    if b"ENCRYPTED PRIVATE KEY" in key or b"4,ENCRYPTED" in key:
        raise CredentialsError(f"{key_name} is encrypted, which gRPC cannot read: decrypt it with `openssl pkey`")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # how strong a key has to be is the server's to say
    try:
        context.load_verify_locations(cadata=certificate.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise CredentialsError(f"{certificate_name} holds no PEM certificate") from None
    try:
        context.load_cert_chain(certificate_name, key_name)
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            message = f"{key_name} is not the key of {certificate_name}, where the client's certificate must come first"
            raise CredentialsError(message) from None
        raise CredentialsError(f"{key_name} holds no PEM private key") from None
