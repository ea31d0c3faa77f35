"""A real aligner server that asks who calls, over TLS or not, a real token endpoint, and certificates for both."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import grpc

from aligner_svc.transport import devcerts
from interceptors import CallInterceptor, CallRefusedError, Recovery
from tests.kit import certificates
from tests.kit.scripted_aligner import ScriptedAligner, scripted_server

Verdict = tuple[grpc.StatusCode, str] | None


@dataclass
class Guard(CallInterceptor):
    """Notes the metadata of every call and refuses with what `decide` returns."""

    decide: Callable[[dict[str, str]], Verdict] = lambda shown: None
    seen: list[dict[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def around(self, method: str, context: Any) -> AsyncIterator[None]:
        shown = dict(context.invocation_metadata())
        self.seen.append(shown)
        if (verdict := self.decide(shown)) is not None:
            raise CallRefusedError(*verdict, "refused")
        yield


@dataclass(frozen=True)
class Guarded:
    target: str
    script: ScriptedAligner
    guard: Guard

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])


@contextmanager
def guarded_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[Guarded]:
    """A scripted_server behind a Guard."""
    guard = Guard()
    with scripted_server(credentials, (Recovery("aligner"), guard)) as running:
        yield Guarded(running.target, running.script, guard)


class Authority:
    """A CA that signs what it is asked to, into files of `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.own = folder, certificates.authority()
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.own.certificate_pem)

    def issue(self, name: str, *, hosts: tuple[str, ...] = (), expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key: a server's where there are `hosts`, else a client's."""
        begun = 2 if expired else 0
        pair = (
            certificates.server(self.own, hosts=hosts, days=1, begun=begun)
            if hosts
            else certificates.client(self.own, name, days=1, begun=begun)
        )
        devcerts.write(self.folder, name, pair)
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def server_credentials(self, name: str, *, client_ca: Path | None = None, **how: Any) -> grpc.ServerCredentials:
        """For a server that wants a client certificate where `client_ca` is given."""
        certificate, key = self.issue(name, **how)
        pair = [(key.read_bytes(), certificate.read_bytes())]
        return grpc.ssl_server_credentials(pair, client_ca and client_ca.read_bytes(), client_ca is not None)


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
