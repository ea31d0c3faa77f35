"""The blocks of commands in README.md and docs/, and running those of a page in order against a server of their own.

A block of `sh`, `console` or `python` runs unless `<!-- not run: REASON -->` stands above it. The blocks of a page share one
shell, as a reader's terminal does; one that ends in a server is a second terminal: the page goes on when the server is ready, and
a later server takes its place. `python -m tests.docs.blocks` runs all pages and prints what each block printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests import PROJECT
from tests.kit.daemon import free_port
from tests.kit.servers import environment

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<language>sh|console|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
_NOT_RUN = "not run: "
_SERVER = re.compile(r"(?:\w+=\S+ )*(?:\.venv/bin/)?(?:aligner serve|make run)\b")
_PORTS = ("50051", "9464", "8080")
"""Those of the pages; each run has free ones in their place."""
_PATHS = {
    "/etc/aligner/tls.crt": "devcerts/server.pem",
    "/etc/aligner/tls.key": "devcerts/server.key",
    "talk.mp3": "talk.flac",
}
_TIMEOUT = 240.0
"""Seconds for a page."""
_PREPARED = {
    "README.md": "cp samples/*.flac talk.flac",
    "docs/abuse.md": """
        export ALIGNER_AUDIT__FILE=audit.log
        grep -h '^{"time"' docs/abuse.md | sed 's/"time": "..."/"time": "2026-03-01T12:00:00Z"/' >audit.log""",
    "docs/audit.md": """
        export ALIGNER_AUDIT__FILE=audit.log
        grep -h '^{"time"' docs/audit.md | tee audit.log >audit.log.1""",
    "docs/command-line.md": """
        mkdir talks
        for name in talk talks/one; do cp samples/*.flac $name.flac; cp samples/*.txt $name.txt; done
        for name in agent caller; do cp samples/*.txt $name.txt; done
        python -c '
import numpy
from tests.kit.recordings import raw_wav, samples
open("call.wav", "wb").write(raw_wav(numpy.repeat(samples(), 2).tobytes(), channels=2))'""",
    "docs/logs.md": """grep -h '^{"time"' docs/logs.md >server.log""",
}
"""What a page assumes to be there, in shell: a recording of the reader's, a log."""


@dataclass(frozen=True)
class Block:
    """Commands on a page. `why_not` they are not run is "" where they are."""

    page: str
    line: int
    language: str
    section: str
    """The heading above it."""
    commands: str
    why_not: str

    @property
    def starts_server(self) -> bool:
        return self.language != "python" and _SERVER.match(self.logical_lines[-1]) is not None

    @property
    def logical_lines(self) -> list[str]:
        """Without comments, and with those joined that a backslash continues."""
        joined = self.commands.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[str]:
    """Those with a block, marked or not."""
    found = (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))
    return [name for name in (path.relative_to(PROJECT).as_posix() for path in found) if blocks(name)]


def blocks(page: str) -> list[Block]:
    """The blocks of a page in order."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        mark, commands = match["mark"] or "", match["text"]
        if match["language"] == "console":
            commands = "".join(line[2:] + "\n" for line in commands.splitlines() if line.startswith("$ "))
        line = text.count("\n", 0, match.start("language")) + 1
        why_not = mark.removeprefix(_NOT_RUN) if mark.startswith(_NOT_RUN) else ""
        above = re.findall(
            r"^#+ .*$", re.sub(r"^```.*?^```$", "", text[: match.start()], flags=re.MULTILINE | re.DOTALL), re.MULTILINE
        )
        found.append(Block(page, line, match["language"], above[-1] if above else "", commands, why_not))
    return found


@dataclass(frozen=True)
class Ran:
    """A page that ran: its exit status, and what each block printed, as far as it came."""

    status: int
    printed: list[tuple[Block, str]]


def run_page(page: str, folder: Path) -> Ran:
    """Run the blocks of a page that are not marked, in `folder`, which is made a checkout of links."""
    wanted = [block for block in blocks(page) if not block.why_not]
    _check_out(folder)
    ports = {port: str(free_port()) for port in _PORTS}
    script = _script(wanted, _PREPARED.get(page, ""), folder, ports)
    variables = environment(
        PATH=f"{folder / '.venv/bin'}:{os.environ['PATH']}",
        PYTHONPATH=f"{PROJECT}:{PROJECT / 'client'}",
        COLUMNS="120",
        ALIGNER_SERVER__LISTEN=f"127.0.0.1:{ports['50051']}",
        ALIGNER_CLIENT_TARGET=f"localhost:{ports['50051']}",
        ALIGNER_SERVER__DRAIN_DELAY="0",
        ALIGNER_ENGINE__WORKERS="1",
        ALIGNER_DECODE__WORKERS="1",
    )
    (folder / "page.sh").write_text(script, encoding="utf-8")
    with (folder / "page.log").open("wb") as log:
        session = subprocess.Popen(
            ["bash", "page.sh"],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = session.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            with suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGTERM if session.poll() is not None else signal.SIGKILL)
            session.wait()
    printed = (folder / "page.log").read_text(encoding="utf-8", errors="replace").split("\x1e\n")[1:]
    logs = [folder / f"terminal-{number}.log" for number in range(len(wanted))]
    texts = [said + (log.read_text(encoding="utf-8") if log.exists() else "") for said, log in zip(printed, logs, strict=False)]
    return Ran(status, list(zip(wanted, texts, strict=False)))


def _check_out(folder: Path) -> None:
    """Links to everything in the project, and a .venv whose programs are those that run the tests."""
    for path in PROJECT.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    beside = Path(sys.executable).parent
    texts = {
        "python": f'exec {sys.executable} "$@"',
        "aligner": f"exec {sys.executable} -c 'from aligner_svc.cli import main; main()' \"$@\"",
        "grpcurl": f'exec {beside / "grpcurl"} "$@"',
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    for mark in (".core", ".grpcurl", ".all"):  # so that make installs nothing
        (folder / ".venv" / mark).touch()


def _script(wanted: list[Block], prepared: str, folder: Path, ports: dict[str, str]) -> str:
    parts = [f"set -euo pipefail\nterminal=\n{prepared}\n"]
    for number, block in enumerate(wanted):
        commands = block.commands
        for name, ours in (_PATHS | ports).items():
            commands = commands.replace(name, ours)
        parts.append("printf '\\036\\n'\n")
        if block.language == "python":
            (folder / f"block-{number}.py").write_text(commands, encoding="utf-8")
            parts.append(f"python block-{number}.py\n")
        elif block.starts_server:
            parts.append(_second_terminal(commands, f"terminal-{number}.log"))
        else:
            parts.append(commands)
    return "".join(parts) + "printf '\\036\\n'\n"


def _second_terminal(commands: str, log: str) -> str:
    """The commands beside the page's own; exec, so that a signal reaches the server."""
    place = commands.rstrip().replace("\\\n", "\\\0").rfind("\n") + 1
    *_, last = (commands[:place], commands[place:])
    return (
        f'[ -z "$terminal" ] || {{ kill "$terminal"; wait "$terminal" || true; }}\n'
        f"( set -e\n{commands[:place]}exec env {last.rstrip()}\n) >{log} 2>&1 & terminal=$!\n"
        f'until grep -q "aligner-svc ready on" {log}; do kill -0 "$terminal" || {{ cat {log}; exit 97; }}; sleep 0.1; done\n'
    )


def _report() -> Iterator[str]:
    for page in pages():
        with tempfile.TemporaryDirectory() as scratch:
            ran = run_page(page, Path(scratch))
        yield f"==== {page}: exit status {ran.status}"
        for block in blocks(page):
            if block.why_not:
                yield f"---- line {block.line}: not run: {block.why_not}"
        for block, printed in ran.printed:
            yield f"---- line {block.line}:\n{block.commands.rstrip()}\n-> {printed.strip() or '(nothing)'}"


if __name__ == "__main__":
    for entry in _report():
        print(entry)
