"""Calls made by @grpc/grpc-js, a third-party client, on Node's own TLS."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests import PROJECT
from tests.kit.npm import install

_FOLDER = PROJECT / "tests" / "node"
_SECONDS = 60


@dataclass(frozen=True)
class NodeAnswer:
    """How the call ended. Bytes in `responses` and in binary metadata are base64; names are as in the proto."""

    code: grpc.StatusCode
    details: str
    responses: list[dict[str, Any]]
    trailing: dict[str, str]

    @property
    def response(self) -> dict[str, Any]:
        """The only one, of a call that went well."""
        assert self.code is grpc.StatusCode.OK, f"{self.code}: {self.details}"
        (only,) = self.responses
        return only


async def node_call(
    target: str,
    method: str,
    requests: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    protos: Path = PROJECT / "protos",
    proto: str = "aligner/v1/aligner.proto",
    options: Mapping[str, str | int] | None = None,
) -> NodeAnswer:
    """Call "package.Service/Method" at HOST:PORT with one request, or with many where it takes a stream.

    Without `ca` in plaintext; with `certificate` and `key` over mTLS. Skips the test where npm cannot fetch the client.
    """
    await asyncio.to_thread(install, _FOLDER)
    described = {
        "target": target,
        "method": method,
        "requests": [requests] if isinstance(requests, Mapping) else list(requests) or [{}],
        "ca": _path(ca),
        "options": dict(options or {}),
        "certificate": _path(certificate),
        "key": _path(key),
        "metadata": dict(metadata or {}),
        "protos": str(protos),
        "proto": proto,
        "seconds": _SECONDS,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        _FOLDER / "client.mjs",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        out, err = await process.communicate(json.dumps(described).encode())
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode(errors="replace")
    answer = json.loads(out)
    code = next(code for code in grpc.StatusCode if code.value[0] == answer["code"])
    return NodeAnswer(code, answer["details"], answer["responses"], answer["trailing"])


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
