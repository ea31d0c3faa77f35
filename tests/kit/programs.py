"""The programs of docs/clients.md, taken from the page, and a server with TLS and API keys for them to call."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import PROJECT
from tests.kit.guarded import Home, port_of
from tests.kit.recordings import SAMPLE, samples

PAGE = PROJECT / "docs" / "clients.md"
_SECONDS = 240.0


@dataclass(frozen=True)
class Desk:
    """A folder with all that a program of the page reads, and a server that it calls."""

    folder: Path
    port: str
    key: str

    def program(self, language: str, name: str) -> Path:
        """All blocks of a language, in order, as one file that calls this server."""
        found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert found, language
        path = self.folder / name
        path.write_text("".join(found).replace("aligner.example:50051", f"localhost:{self.port}"), encoding="utf-8")
        return path

    async def run(self, *command: str | Path, **variables: str) -> str:
        """What a command printed, whatever its status; the samples of a recording are its standard input."""
        return (await self._run(command, variables))[1]

    async def done(self, *command: str | Path, **variables: str) -> str:
        """What a command printed that must succeed."""
        status, printed = await self._run(command, variables)
        assert status == 0, printed
        return printed

    async def calls(self, *command: str | Path, times: int, **variables: str) -> None:
        """The program aligns `times` recordings with a good key, and says why it cannot with a bad one."""
        good = await self.done(*command, ALIGNER_KEY=self.key, **variables)
        words = [line.split()[-1] for line in good.splitlines()]
        assert words == ["what", "was", "said"] * times, good
        bad = await self.run(*command, ALIGNER_KEY=self.key[:-1], **variables)
        assert "CREDENTIALS_INVALID" in bad

    async def _run(self, command: tuple[str | Path, ...], variables: dict[str, str]) -> tuple[int | None, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=kept | variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            printed, _ = await asyncio.wait_for(process.communicate(samples().tobytes()), _SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode, printed.decode(errors="replace")


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    """A server that knows one key, and its caller's folder."""
    (folder / "server").mkdir()
    home = Home(folder / "server", mtls=False, methods=("api_key",))
    caller = folder / "src" / "caller"  # where Go looks for a module of this name
    caller.mkdir(parents=True)
    for name, target in {"ca.pem": home.folder / "ca.pem", "speech.flac": SAMPLE, "lecture.mp3": SAMPLE}.items():
        (caller / name).symlink_to(target)
    # A copy: buf follows no links.
    shutil.copytree(PROJECT / "client", caller / "client", ignore=shutil.ignore_patterns("*.py*"))
    async with home.serving() as running:
        yield Desk(caller, port_of(running), (await home.new_key("align")).reveal())
