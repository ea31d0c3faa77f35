"""A real gRPC server behind the interceptors under test, over TLS or mutual TLS, and a channel to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import grpc
from grpc import aio

from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.transport.devcerts import Pair
from interceptors import Authenticate, CallInterceptor, Chain, Record, Wrapping, current_call
from interceptors.auth.method import AuthContext, AuthMethod
from interceptors.auth.mtls import CertificateAuthenticator
from interceptors.calls.principal import Principal
from tests.kit import certificates

SERVICE = "test.Kinds"
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
T = TypeVar("T")
_SERVER = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
# No proxy from the environment, a connection of its own for each channel, errors as the server sent them, messages of any size.
_CHANNEL = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class PeerFromHeader(CallInterceptor):
    """Takes the peer of a call from the header x-peer, where there is one."""

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        said = dict(context.invocation_metadata()).get("x-peer")
        if said:
            current_call().peer = said
        yield


@dataclass(frozen=True)
class Identities:
    """Certificates of a CA, a server on loopback and a client."""

    ca: Pair = field(default_factory=certificates.authority)
    server: Pair = field(init=False)
    client: Pair = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "server", certificates.server(self.ca))
        object.__setattr__(self, "client", certificates.client(self.ca))

    def server_credentials(self, *, mutual: bool = False) -> grpc.ServerCredentials:
        pair = (self.server.key_pem, self.server.certificate_pem)
        return grpc.ssl_server_credentials([pair], self.ca.certificate_pem if mutual else None, require_client_auth=mutual)

    def channel_credentials(self, own: Pair | None = None) -> grpc.ChannelCredentials:
        """`own`: the client's certificate."""
        pair = (own.key_pem, own.certificate_pem) if own else (None, None)
        return grpc.ssl_channel_credentials(self.ca.certificate_pem, *pair)


@cache
def identities() -> Identities:
    """Made once a process."""
    return Identities()


@asynccontextmanager
async def started(
    server: aio.Server, credentials: grpc.ServerCredentials | None = None, *, address: str = "127.0.0.1:0", grace: float = 0.0
) -> AsyncIterator[str]:
    """The server's target, while it runs. `address`: HOST:PORT or unix:PATH; `grace`: seconds that open calls have at the end."""
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(grace)


@contextmanager
def in_thread(running: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """`running`, entered on an event loop in a thread of its own, for tests of clients that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result()

    try:
        entered = wait_for(running.__aenter__())
        try:
            yield entered
        finally:
            wait_for(running.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def make_server(
    interceptors: Iterable[Wrapping],
    *handlers: grpc.GenericRpcHandler,
    register: Callable[[aio.Server], None] | None = None,
    options: Sequence[tuple[str, int]] = (),
) -> aio.Server:
    """The interceptors, outermost first, as one Chain in front of `handlers` and what `register` adds to the server."""
    server = aio.server(interceptors=(Chain(interceptors),), options=(*_SERVER, *options))
    server.add_generic_rpc_handlers(handlers)
    if register is not None:
        register(server)
    return server


@dataclass(frozen=True)
class ChainServer:
    """A running server. `channel` is connected; over mutual TLS it has the client's certificate."""

    target: str
    channel: aio.Channel

    @property
    def stub(self) -> AlignerStub:
        return AlignerStub(self.channel)

    def connect(self, own: Pair | None = None) -> aio.Channel:
        """Another TLS connection, with the certificate `own` or none."""
        return aio.secure_channel(self.target, identities().channel_credentials(own), _CHANNEL)


@asynccontextmanager
async def chain_server(
    interceptors: Iterable[Wrapping],
    *handlers: grpc.GenericRpcHandler,
    register: Callable[[aio.Server], None] | None = None,
    mutual: bool = False,
    tls: bool = True,
    address: str = "127.0.0.1:0",
    grace: float = 0.0,
    options: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[ChainServer]:
    """Run `make_server(...)` over TLS, mutual TLS or, where `tls` is False, plaintext."""
    server, known = make_server(interceptors, *handlers, register=register, options=options), identities()
    async with started(server, known.server_credentials(mutual=mutual) if tls else None, address=address, grace=grace) as target:
        credentials = known.channel_credentials(known.client if mutual else None)
        channel = aio.secure_channel(target, credentials, _CHANNEL) if tls else aio.insecure_channel(target, _CHANNEL)
        async with channel:
            await channel.channel_ready()  # so that no deadline of a test is spent on the handshake
            yield ChainServer(target, channel)


class KindsHandler(grpc.GenericRpcHandler):
    """Serves a method of each kind of RPC at /test.Kinds/. `act` answers them all; subclasses change single ones."""

    read = 0
    """Bytes of requests received."""

    async def act(self, request: bytes, context: Any) -> bytes:
        """The answer. `request`: all messages of a stream, joined."""
        return request

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.read += len(request)
        return await self.act(request, context)

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield await self.unary_unary(request, context)

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        body = b""
        async for request in requests:
            self.read += len(request)
            body += request
        return await self.act(body, context)

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield await self.stream_unary(requests, context)

    def unary_methods(self) -> Mapping[str, Callable[..., Any]]:
        """Further methods, by name."""
        return {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        methods = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self.unary_unary),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self.unary_stream),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self.stream_stream),
        }
        methods |= {name: grpc.unary_unary_rpc_method_handler(method) for name, method in self.unary_methods().items()}
        service, _, name = handler_call_details.method[1:].partition("/")
        return methods.get(name) if service == SERVICE else None


def start(channel: aio.Channel, kind: str, body: bytes | tuple[bytes, ...] = b"body", **named: Any) -> Any:
    """The call object of a KindsHandler's method, its request sent. `body`: a tuple holds the messages of a request stream.

    A stream of one message is sent as a unary request, which is the same on the wire: grpc.aio reports INTERNAL in place of a
    refusal that arrives while a stream's message is being sent.
    """
    path = kind if kind.startswith("/") else f"/{SERVICE}/{kind}"
    streams_answer = path.endswith(("/UnaryStream", "/StreamStream"))
    if isinstance(body, tuple):
        return (channel.stream_stream if streams_answer else channel.stream_unary)(path)(iter(body), **named)
    return (channel.unary_stream if streams_answer else channel.unary_unary)(path)(body, **named)


async def answer(call: Any) -> bytes:
    """The whole answer of a call of any kind."""
    if isinstance(call, aio.UnaryUnaryCall | aio.StreamUnaryCall):
        return await call
    return b"".join([response async for response in call])


class Names(AuthMethod):
    """Takes "NAME" or "NAME,SCOPE,..." for a good credential."""

    def __init__(self, header: str, scheme: str = "") -> None:
        self.header = header
        self.hint = f"a name ({header}: ...)"
        self._scheme = scheme

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def authenticate(self, credential: str, connection: AuthContext) -> Principal:
        name, *scopes = credential.removeprefix(self._scheme).split(",")
        return Principal(name, "jwt", frozenset(scopes))


def authentication(*methods: AuthMethod, record: Record = lambda event: None, **changes: Any) -> Authenticate:
    """The real interceptor. If not given, `methods` are names as bearer tokens and API keys, and client certificates."""
    methods = methods or (Names("authorization", "Bearer "), Names("x-api-key"), CertificateAuthenticator(("spiffe",), ()))
    return Authenticate(methods, record=record, **{"exempt": (), "expiry_grace": 0.0, "domain": "test"} | changes)


def bearer(token: str) -> tuple[str, str]:
    """Metadata."""
    return "authorization", f"Bearer {token}"
