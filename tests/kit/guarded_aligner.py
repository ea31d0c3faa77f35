"""A real aligner server that asks who calls, over TLS or not, a real token endpoint, and certificates for both."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from aligner_svc.api.v1.aligner_pb2_grpc import add_AlignerServicer_to_server
from tests.kit.scripted_aligner import ScriptedAligner

Verdict = tuple[grpc.StatusCode, str] | None


@dataclass
class Guard(grpc.aio.ServerInterceptor):
    """Notes the metadata of every call; refuses with what `decide` says of it."""

    decide: Callable[[dict[str, str]], Verdict] = lambda shown: None
    seen: list[dict[str, str]] = field(default_factory=list)

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        shown = dict(details.invocation_metadata)
        self.seen.append(shown)
        verdict = self.decide(shown)
        handler = await continuation(details)
        if verdict is None:
            return handler
        code, reason = verdict
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="aligner"))
        status = status_pb2.Status(code=code.value[0], message="refused", details=[detail])

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(code, "refused", (("grpc-status-details-bin", status.SerializeToString()),))

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse_stream(refuse))
        return grpc.unary_unary_rpc_method_handler(refuse, handler.request_deserializer, handler.response_serializer)


def refuse_stream(refuse: Any) -> Any:
    async def answer(requests: Any, context: Any) -> Any:
        await refuse(requests, context)
        yield b""

    return answer


@dataclass(frozen=True)
class Guarded:
    port: int
    script: ScriptedAligner
    guard: Guard

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def guarded_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[Guarded]:
    """In a thread of its own, with its own event loop, so that a blocking client can be tested too."""
    script, guard = ScriptedAligner(), Guard()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(interceptors=[guard], options=[("grpc.so_reuseport", 0)])
        add_AlignerServicer_to_server(script, server)
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield Guarded(port, script, guard)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Authority:
    """A CA that signs what it is asked to, into files of `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(self._name, self._key.public_key(), (), ca=True, days=1))

    def issue(self, name: str, *, hosts: tuple[str, ...] = (), days: int = 1) -> tuple[Path, Path]:
        """Certificate and key. `days` negative: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate_file.write_bytes(self._sign(subject, key.public_key(), hosts, ca=False, days=days))
        pem, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(pem, shape, serialization.NoEncryption()))
        key_file.chmod(0o600)
        return certificate_file, key_file

    def server_credentials(self, name: str, *, client_ca: Path | None = None, **how: Any) -> grpc.ServerCredentials:
        """For a server that wants a client certificate where `client_ca` is given."""
        certificate, key = self.issue(name, **how)
        pair = [(key.read_bytes(), certificate.read_bytes())]
        return grpc.ssl_server_credentials(pair, client_ca and client_ca.read_bytes(), client_ca is not None)

    def _sign(self, subject: x509.Name, key: Any, hosts: tuple[str, ...], *, ca: bool, days: int) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), True)
        )
        if hosts:
            names: list[x509.GeneralName] = [
                x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Asked:
    """One request to the token endpoint."""

    headers: dict[str, str]
    form: dict[str, list[str]]


@dataclass
class Answer:
    """What the token endpoint says. A dict is sent as JSON."""

    body: dict[str, Any] | bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Provider:
    """A token endpoint: scripted answers first, then tokens "token-1", "token-2", ... of the number of the request."""

    url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    lifetime: float = 3600
    gate: threading.Event = field(default_factory=threading.Event)
    """Nothing is answered before it is set, as it is at first."""
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def next_answer(self) -> Answer:
        token = {"access_token": f"token-{len(self.asked)}", "token_type": "Bearer", "expires_in": self.lifetime}
        return self.answers.popleft() if self.answers else Answer(token)


@contextmanager
def token_endpoint(certificate: tuple[Path, Path] | None = None) -> Iterator[Provider]:
    """On loopback, http or with a certificate https."""
    provider = Provider()
    provider.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            provider.asked.append(Asked({key.lower(): value for key, value in self.headers.items()}, form))
            answer = provider.next_answer()
            provider.arrived.release()
            provider.gate.wait()
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that does not like the certificate leaves in the middle; that is its right."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    provider.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
