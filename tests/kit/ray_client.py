"""A client of the engine ray, without Ray: `python -m tests.kit.ray_client SOCKET FOLDER`. Lanes say what becomes of a call."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from aligner_svc.engines.ray_serve.client import Cluster, listen
from aligner_svc.engines.ray_serve.wire import encode_refusal
from aligner_svc.errors import LimitExceededError
from aligner_svc.workers import attach


class ScriptedCluster(Cluster):
    """It is gone while there is a file "gone" in the folder."""

    probe_seconds = 0.2
    probe_every = 0.1

    def __init__(self, folder: str) -> None:
        super().__init__("127.0.0.1:1", "scripted")
        self._folder = Path(folder)

    def connect(self) -> None:
        while (self._folder / "gone").exists():
            time.sleep(0.02)

    def open(self) -> None:
        """Nothing."""

    async def call(self, lane: str, header: dict[str, Any], payload: bytes, client: str, left: float) -> tuple[Any, ...]:
        if (self._folder / "gone").exists():
            await asyncio.sleep(left)
            raise TimeoutError
        if lane == "refuse":
            return ("refusal", encode_refusal(LimitExceededError("ENGINE_QUEUE_FULL", "full", retry_after=2.0)))
        if lane == "lose":
            raise RuntimeError("lost")
        if lane == "die" and not (self._folder / "died").exists():
            (self._folder / "died").touch()
            os._exit(1)
        if lane == "hang":
            try:
                (self._folder / "hanging").touch()
                await asyncio.sleep(3600)
            finally:
                (self._folder / "cancelled").touch()
        self.heard_at = time.monotonic()
        return ("answer", {"client": client, "left": left, **header}, payload[::-1], 0.25)


if __name__ == "__main__":
    listen(attach(), sys.argv[1], ScriptedCluster(sys.argv[2]))
