"""An issuer's web server that answers as a test has it: what no real provider can be made to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

JWKS, METADATA, RFC_8414 = "/jwks", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


@dataclass
class Page:
    """An answer. `held`: not given until this is set. `dripping`: blanks after the body, one by one and without an end."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    held: asyncio.Event | None = None
    dripping: bool = False


@dataclass
class ScriptedIssuer:
    """`pages` by path; anything else is not found. `asked` counts the requests, and `coming` is set by each."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[bytes] = field(default_factory=list)
    coming: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    server: asyncio.Server | None = None

    def publish(self, jwks: bytes, **metadata: Any) -> None:
        """Metadata and keys, as a sound issuer has them; `metadata` in its place."""
        self.pages[JWKS] = Page(jwks)
        self.pages[METADATA] = Page(json.dumps({"issuer": self.url, "jwks_uri": self.url + JWKS} | metadata).encode())

    async def stop(self) -> None:
        """Idempotent."""
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.headers.append(head)
            self.asked[path] += 1
            self.coming.set()
            page = self.pages.get(path, Page(b"", 404))
            if page.held is not None:
                await page.held.wait()
            lines = [f"HTTP/1.1 {page.status} x", "connection: close"]
            lines += [f"{name}: {value}" for name, value in page.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + page.body)
            await writer.drain()
            while page.dripping and not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.01)  # until the client has gone
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it was let down in the middle
        finally:
            writer.close()


@asynccontextmanager
async def scripted_issuer() -> AsyncIterator[ScriptedIssuer]:
    """On a free loopback port, publishing nothing yet."""
    issuer = ScriptedIssuer()
    issuer.server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{issuer.server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        await issuer.stop()
