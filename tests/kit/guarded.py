"""A server of the prod profile with real certificates, keys in a real database and issuers that sign as real ones do."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from aligner_client.api.v1 import aligner_pb2
from aligner_svc.config.protection import QuotaSettings
from aligner_svc.config.security import AuditSettings, AuthSettings, Issuer, JwtSettings, KeySettings, TlsSettings
from aligner_svc.server import Service
from aligner_svc.transport import devcerts
from aligner_svc.transport.devcerts import Pair
from aligner_svc.wiring.api_keys import make_pepper, open_store, read_pepper
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.store import KeyRecord
from tests.kit import certificates
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving
from tests.kit.token_forge import Forge, base64url
from tests.kit.waiting import eventually

METHODS = ("mtls", "jwt", "api_key")
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))


@dataclass
class Home:
    """The files of a server: certificates, JWK sets, the key database, the audit log."""

    folder: Path
    mtls: bool = True
    """Every client needs a certificate."""
    methods: Sequence[str] = METHODS
    ca: Pair = field(default_factory=certificates.authority)

    def __post_init__(self) -> None:
        self.server = certificates.server(self.ca)
        self.client = certificates.client(self.ca)
        for name, pair in (("ca", self.ca), ("server", self.server), ("client", self.client)):
            devcerts.write(self.folder, name, pair)
        self.forge = Forge(thumbprint=thumbprint(self.client))
        (self.folder / "jwks.json").write_bytes(self.forge.jwks())
        (self.folder / "other.json").write_bytes(self.forge.other_jwks())
        self.audit = self.folder / "audit.jsonl"
        # Tests call as fast as they can; those about quotas bring their own.
        self.quotas = self.folder / "quotas.toml"
        self.quotas.write_text("[classes.default]\nrequests_per_second = 1e6\nburst = 1e6\n")
        self.keys = KeySettings(database=f"sqlite+aiosqlite:///{self.folder}/keys.db", pepper_file=self.folder / "pepper")

    def parts(self, **changes: Any) -> dict[str, Any]:
        """What `serving` takes."""
        at = self.folder
        forge = self.forge
        issuers = (
            Issuer(issuer=forge.issuer, audience=("aligner",), jwks_file=at / "jwks.json"),
            Issuer(issuer=forge.other_issuer, audience=("aligner",), jwks_file=at / "other.json"),
        )
        return {
            "profile": "prod",
            "engine": ScriptedEngine(),
            "tls": TlsSettings(
                certificate=at / "server.pem",
                key=at / "server.key",
                client_ca=at / "ca.pem" if self.mtls else None,
                reload_every=0.05,
            ),
            "auth": AuthSettings(methods=tuple(method for method in self.methods if self.mtls or method != "mtls")),
            "jwt": JwtSettings(issuers=issuers),
            "keys": self.keys,
            "quota": QuotaSettings(file=self.quotas),
            "audit": AuditSettings(file=self.audit),
        } | changes

    @asynccontextmanager
    async def serving(self, **changes: Any) -> AsyncIterator[Service]:
        if "api_key" in self.methods:
            make_pepper(self.keys)
        async with serving(**self.parts(**changes)) as running:
            yield running

    async def new_key(self, *scopes: str, expires: float | None = None) -> api_key.ApiKey:
        """A key in the database, as `aligner keys create` leaves it."""
        key = api_key.new(self.keys.prefix)
        pepper, store = read_pepper(self.keys), open_store(self.keys)
        await store.migrate()
        mark = api_key.pepper_mark(pepper)
        digest = api_key.digest(pepper, key)
        await store.add(KeyRecord(key.id, digest, mark, "tests", frozenset(scopes), time.time(), expires))
        await store.close()
        return key

    async def revoke(self, key: api_key.ApiKey) -> None:
        store = open_store(self.keys)
        assert await store.revoke(key.id, time.time())
        await store.close()

    def connect(self, server: Service, own: Pair | None = None, *, anonymous: bool = False) -> grpc.aio.Channel:
        """A channel of its own, with the client's certificate where the server asks for one, or with `own`."""
        pair = own or (self.client if self.mtls and not anonymous else None)
        credentials = grpc.ssl_channel_credentials(
            self.ca.certificate_pem, pair.key_pem if pair else None, pair.certificate_pem if pair else None
        )
        return grpc.aio.secure_channel(f"localhost:{port_of(server)}", credentials, _OPTIONS)

    def events(self) -> list[dict[str, str]]:
        """The lines of the audit log so far, but for one that is being written."""
        lines = self.audit.read_text().splitlines(keepends=True) if self.audit.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    async def events_of(self, request_id: str, count: int = 1) -> list[dict[str, str]]:
        """What was recorded of one call; the log is written beside the calls."""

        def found() -> list[dict[str, str]]:
            return [event for event in self.events() if event.get("request_id") == request_id]

        await eventually(lambda: len(found()) >= count, f"{count} audit lines of {request_id}")
        return found()


def port_of(server: Service) -> str:
    return server.address.rpartition(":")[2]


def thumbprint(pair: Pair) -> str:
    der = pair.certificate.public_bytes(serialization.Encoding.DER)
    return base64url(hashlib.sha256(der).digest())


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def with_key(key: api_key.ApiKey) -> tuple[str, str]:
    return "x-api-key", key.reveal()


def info(channel: grpc.aio.Channel, *metadata: tuple[str, str], **named: Any) -> Any:
    """A GetServerInfo call, the cheapest that needs the scope."""
    method: Callable[..., Any] = channel.unary_unary(
        "/aligner.v1.Aligner/GetServerInfo",
        request_serializer=aligner_pb2.GetServerInfoRequest.SerializeToString,
        response_deserializer=aligner_pb2.GetServerInfoResponse.FromString,
    )
    return method(aligner_pb2.GetServerInfoRequest(), metadata=metadata, **named)


async def denied(call) -> tuple[str, str]:
    """Code and reason."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    reported = refusal(error.value)
    return reported.code.name, reported.reason
