"""Stubs that a caller generates with the templates of client/: they compile, with the programs of docs/clients.md; Go's calls."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import PROJECT
from tests.kit.npm import install
from tests.kit.programs import Desk, desk

pytestmark = [pytest.mark.stubs, pytest.mark.timeout(600)]

GO = "/usr/share/gocode"
"""Where Debian has Go's libraries: gRPC 1.33, whose generated code is that of today."""
JARS = "/usr/share/java/*"
"""Where Debian has Java's: gRPC 1.41. Its netty has no ALPN, and so no gRPC over TLS."""


async def generate(caller: Desk, language: str, **variables: str) -> None:
    """By the command of the page."""
    install(PROJECT / "tools" / "buf")
    buf = PROJECT / "tools" / "buf" / "node_modules" / ".bin" / "buf"
    await caller.done(buf, "generate", "--template", f"client/buf.gen.{language}.yaml", **variables)


async def test_go_calls(tmp_path: Path) -> None:
    async with desk(tmp_path) as caller:
        await generate(caller, "go")
        where = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO}"}
        caller.program("go", "caller.go")
        await caller.done("go", "vet", "./...", **where)
        await caller.done("go", "build", "-o", "run", ".", **where)
        await caller.calls("./run", times=2)


async def test_java_compiles(tmp_path: Path) -> None:
    async with desk(tmp_path) as caller:
        programs = tmp_path / "bin"
        programs.mkdir()
        plugin = shutil.which("protoc-gen-grpc-java") or shutil.which("grpc_java_plugin")
        assert plugin is not None
        (programs / "protoc-gen-grpc-java").symlink_to(plugin)
        await generate(caller, "java", PATH=f"{programs}:/usr/bin:/bin")
        # Debian has no package of these, which everybody else has from proto-google-common-protos.
        common = [f"google/rpc/{name}.proto" for name in ("status", "error_details")]
        await caller.done("protoc", "-Iclient/protos", "--java_out=gen/java", *common)
        caller.program("java", "Caller.java")
        sources = sorted(str(path) for path in (caller.folder / "gen" / "java").rglob("*.java"))
        await caller.done("javac", "-nowarn", "-d", "out", "-cp", JARS, "Caller.java", *sources)


async def test_typescript_compiles(tmp_path: Path) -> None:
    packages = PROJECT / "tests" / "typescript"
    install(packages)
    async with desk(tmp_path) as caller:
        (caller.folder / "node_modules").symlink_to(packages / "node_modules")
        await generate(caller, "typescript")
        checked = "--noEmit --strict --skipLibCheck --esModuleInterop --module nodenext --target es2022 --types node"
        sources = sorted(str(path) for path in (caller.folder / "gen" / "ts").rglob("*.ts"))
        assert any(path.endswith("aligner/v1/aligner.ts") for path in sources)
        await caller.done("node_modules/.bin/tsc", *checked.split(), *sources)
