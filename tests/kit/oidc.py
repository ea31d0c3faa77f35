"""A real OpenID provider, `oidc-provider` from npm, on a free loopback port."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from tests.kit.npm import install
from tests.kit.servers import environment
from tests.kit.waiting import WAIT_TIMEOUT

HERE = Path(__file__).parent.parent / "oidc"
AUDIENCE = "aligner"


class OidcProvider:
    """The provider, started by `providing`."""

    def __init__(self, process: asyncio.subprocess.Process, issuer: str) -> None:
        self.issuer = issuer
        self._process = process

    async def token(
        self, resource: str = "rs256", *, scope: str = "align", client: str = "service-a", certificate: bytes | None = None
    ) -> str:
        """An access token by client_credentials.

        `resource`: of provider.mjs: the algorithm it is signed with, "opaque", or a whole URI. `client`: "service-a", or
        "service-bound", whose tokens are bound to `certificate` (DER), the one it has at the provider.
        """
        target = resource if ":" in resource else f"https://aligner.example.org/{resource}"
        form = {"grant_type": "client_credentials", "scope": scope, "resource": target}
        headers = {"x-client-certificate": base64.b64encode(certificate).decode()} if certificate else {}
        async with httpx.AsyncClient(trust_env=False, timeout=WAIT_TIMEOUT) as http:
            answer = await http.post(f"{self.issuer}/token", data=form, auth=(client, "only-for-tests"), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def rotate(self) -> list[str]:
        """New signing keys for all algorithms in the place of the old ones; their kids."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"rotate\n")
        return (await said(self._process))["kids"]

    async def stop(self) -> None:
        """Idempotent. It stops answering."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(WAIT_TIMEOUT):
            await self._process.wait()


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line of the provider's own; what its libraries say is passed over."""
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_TIMEOUT):
        while line := await process.stdout.readline():
            if line.startswith(b"{"):
                return json.loads(line)
    raise AssertionError(f"the provider ended with {await process.wait()}")


@asynccontextmanager
async def providing() -> AsyncIterator[OidcProvider]:
    """A provider with keys of its own, running."""
    await asyncio.to_thread(install, HERE)
    process = await asyncio.create_subprocess_exec(
        "node",
        "provider.mjs",
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(),
    )
    try:
        yield OidcProvider(process, (await said(process))["issuer"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[OidcProvider]:
    """One for each test: they take its keys away, and stop it."""
    async with providing() as running:
        yield running
