"""A first cluster, on this machine: its head, a node, and the application. Its processes are kept by their ids.

Not by `ray stop`, which ends every Ray process of the machine, whosever it is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.ray_serve.app import Options
from aligner_svc.engines.ray_serve.credentials import environment, is_local
from aligner_svc.workers.frames import parse_header

STATE: Final = "cluster.json"
LOG: Final = "cluster.log"
_ADMIN: Final = "aligner_svc.engines.ray_serve.admin"
_UP_TIMEOUT: Final = 60.0
_DOWN_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the cluster; `started`: field 22 of /proc/PID/stat, so that no other process is taken for it."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started


def read(directory: Path) -> Running | None:
    """The head that `up` started in this directory, if it runs."""
    try:
        state = json.loads((directory / STATE).read_text())
        running = Running(int(state["pid"]), int(state["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if running.alive else None


def start_head(directory: Path, address: str, cpus: int) -> Running:
    """Start a head with a node of `cpus` cores on this machine, reached on loopback alone. Raises EngineStartError, OSError."""
    host, _, port = address.rpartition(":")
    if not is_local(address):
        raise EngineStartError(
            f"aligner cluster up makes a cluster on 127.0.0.1, not at {host}: docs/ray.md says how others are made"
        )
    if _port_answers(int(port)):
        raise EngineStartError(f"something listens at {address} already: choose another port (setting ray.address)")
    variables = environment(directory, address, os.environ)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--port", port, "--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus), "--include-dashboard", "false"),
        *("--include-log-monitor", "false"),  # it sends the logs of replicas to clients that want none
        *("--ray-client-server-port", str(_free_port()), "--dashboard-agent-listen-port", "0"),
        *("--temp-dir", str(_temporary(directory))),
    ]
    with (directory / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, env=inherited() | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    running = Running(process.pid, _started(process.pid) or 0)
    (directory / STATE).write_text(json.dumps({"pid": running.pid, "started": running.started}))
    end = time.monotonic() + _UP_TIMEOUT
    while not _port_answers(int(port)):
        if not running.alive or time.monotonic() > end:
            raise EngineStartError(f"Ray's head does not start: see {directory / LOG}")
        time.sleep(0.1)
    return running


def stop_head(running: Running, directory: Path) -> bool:
    """End it and the processes that it started. Whether it ran until now."""
    if not running.alive:
        return False
    os.kill(running.pid, signal.SIGTERM)
    end = time.monotonic() + _DOWN_TIMEOUT
    while running.alive and time.monotonic() < end:
        time.sleep(0.1)
    if running.alive:
        os.kill(running.pid, signal.SIGKILL)
    for pid in session(running.pid):  # what a killed head left
        os.kill(pid, signal.SIGKILL)
    (directory / STATE).unlink(missing_ok=True)
    return True


def deploy(directory: Path, address: str, name: str, options: Options, *, wait: float) -> Mapping[str, Any]:
    """Run the application, or replace the replicas of one that runs. Returns when the new ones serve. Raises EngineStartError."""
    wanted = {"deploy": {"name": name, "options": asdict(options)}}
    return _admin(directory, address, wanted, wait)


def status(directory: Path, address: str, name: str, *, wait: float) -> Mapping[str, Any]:
    """Nodes, and replicas of the application by state. Raises EngineStartError."""
    return _admin(directory, address, {"status": {"name": name}}, wait)


def _admin(directory: Path, address: str, wanted: Mapping[str, Any], wait: float) -> Mapping[str, Any]:
    """In a process of its own: Ray ends the one that loses its cluster."""
    command: Sequence[str] = (sys.executable, "-m", _ADMIN, address, json.dumps(wanted))
    variables = inherited() | environment(directory, address, os.environ)
    try:
        done = subprocess.run(command, env=variables, capture_output=True, timeout=wait, check=False)
    except subprocess.TimeoutExpired:
        raise EngineStartError(f"the cluster at {address} did not answer within {wait:g} s: see {directory / LOG}") from None
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        last = next(reversed(done.stderr.decode(errors="replace").strip().splitlines()), f"exit status {done.returncode}")
        raise EngineStartError(f"the cluster at {address}: {last[:500]}")
    return parse_header(lines[-1].encode())


def _temporary(directory: Path) -> Path:
    """Ray's sockets are in it, and their paths may have 107 characters."""
    wanted = directory.absolute() / "run"
    return wanted if len(str(wanted)) <= 40 else Path("/tmp") / f"aligner-ray-{os.getuid()}"  # noqa: S108 - Ray makes it 0700


def inherited() -> dict[str, str]:
    """Variables of this process, without the server's secrets, which a node has no use for."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - a str is what PYTHONPATH needs
    return {name: value for name, value in os.environ.items() if not name.startswith("ALIGNER_")} | {"PYTHONPATH": path}


def _started(pid: int) -> int | None:
    """None for one that has ended, too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def session(leader: int) -> list[int]:
    """Processes of the session that `leader` began."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except (OSError, ValueError, IndexError):
                continue
            if session == leader and int(entry.name) != leader:
                found.append(int(entry.name))
    return found


def _free_port() -> int:
    """For a server of Ray's that nothing here uses; at its usual port two clusters would meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _port_answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
