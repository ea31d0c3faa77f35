"""The programs of docs/clients.md for Node and Python do what the page says. test_stubs.py has those that need a compiler."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import PROJECT
from tests.kit.npm import install, needs_node
from tests.kit.programs import desk

NODE = PROJECT / "tests" / "node"


@needs_node
async def test_node_aligns_a_message_a_file_and_what_is_being_recorded(tmp_path: Path) -> None:
    install(NODE)
    async with desk(tmp_path) as caller:
        (caller.folder / "node_modules").symlink_to(NODE / "node_modules")
        await caller.calls("node", caller.program("js", "caller.mjs"), times=3)


async def test_python_aligns_with_stubs_of_its_own(tmp_path: Path) -> None:
    async with desk(tmp_path) as caller:
        sources = ["-Iclient/protos", "--python_out=.", "--grpc_python_out=.", "aligner/v1/aligner.proto"]
        await caller.done(sys.executable, "-m", "grpc_tools.protoc", *sources)
        await caller.calls(sys.executable, caller.program("python", "caller.py"), times=2)
