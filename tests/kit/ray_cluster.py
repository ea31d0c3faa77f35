"""A Ray cluster on this machine: a head, nodes that join it, and the application. Its processes end with the fixture."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aligner_svc.cli.cluster import make_credentials
from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, RaySettings
from aligner_svc.engines.ray_serve import local
from aligner_svc.engines.ray_serve.app import Options
from aligner_svc.engines.ray_serve.credentials import environment
from tests.kit.waiting import eventually_blocking

_DEPLOY_SECONDS = 200.0


class RayCluster:
    """A head with one core, to begin with."""

    def __init__(self, directory: Path, replicas: int, most: int) -> None:
        port = _free_port()
        ray = RaySettings(
            address=f"127.0.0.1:{port}", directory=directory, min_replicas=replicas, max_replicas=most, queue_wait=0.1
        )
        self.settings = Settings(engine=EngineSettings(name="ray", queue=200), ray=ray)
        self.nodes: list[subprocess.Popen[bytes]] = []
        make_credentials(directory)

    def up(self, cpus: int = 1) -> None:
        """Start the head."""
        local.start_head(self.settings.ray.directory, self.settings.ray.address, cpus)

    def join(self) -> None:
        """Start another node, with one core."""
        ray = self.settings.ray
        variables = local.inherited() | environment(ray.directory, ray.address, os.environ)
        command = [sys.executable, "-m", "tests.kit.ray_node", ray.address]
        with (ray.directory / local.LOG).open("ab") as log:
            node = subprocess.Popen(
                command,
                env=variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)

    def deploy(self, release: str = "1", settings: Settings | None = None) -> None:
        """Run the replicas, or replace those of another release. `settings`: of another application beside it."""
        wanted = settings or self.settings
        ray, options = wanted.ray, Options.of(wanted, release)
        local.deploy(ray.directory, ray.address, ray.application, options, wait=_DEPLOY_SECONDS)

    def processes(self) -> list[int]:
        """All of them, with those that the replicas started."""
        head = local.read(self.settings.ray.directory)
        leaders = [*([head.pid] if head else []), *(node.pid for node in self.nodes)]
        return [pid for leader in leaders for pid in (leader, *local.session(leader))]

    def replicas(self) -> list[int]:
        """Process ids."""
        return [pid for pid in self.processes() if _command(pid).startswith("ray::ServeReplica")]

    def kill_head(self) -> None:
        """The head and all that runs on its node, as a machine that loses its power."""
        running = local.read(self.settings.ray.directory)
        assert running is not None
        _kill_session(running.pid)
        eventually_blocking(lambda: not running.alive)

    def kill_node(self) -> None:
        """One that joined."""
        node = self.nodes.pop()
        _kill_session(node.pid)
        node.wait()

    def close(self) -> None:
        """End all."""
        while self.nodes:
            self.kill_node()
        if local.read(self.settings.ray.directory) is not None:
            self.kill_head()


@contextmanager
def ray_cluster(replicas: int, most: int) -> Iterator[RayCluster]:
    """With credentials of its own; nothing runs yet. Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = RayCluster(Path(folder), replicas, most)
        try:
            yield made
        finally:
            made.close()


def _free_port() -> int:
    """Below the ports that outgoing connections are given: the head takes seconds to bind it."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return int(free.getsockname()[1])


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _kill_session(leader: int) -> None:
    for pid in [leader, *local.session(leader)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
