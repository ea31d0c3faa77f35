"""What runs on the cluster: one half of an engine, with its queue."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from aligner_svc.config.engine import REMOTE, EngineSettings, QwenSettings
from aligner_svc.domain import Caller
from aligner_svc.engines.halves import HalfSettings, Halves
from aligner_svc.engines.ray_serve.wire import encode_refusal
from aligner_svc.engines.refusals import lost
from aligner_svc.errors import AlignerError
from aligner_svc.workers import WorkerDiedError, WorkerTimeoutError

if TYPE_CHECKING:
    from aligner_svc.engines.halves import Half


def halves(name: str) -> Halves:
    """The two halves of an engine, by its name."""
    return cast("Halves", importlib.import_module(REMOTE[name]))


class Replica:
    """A plain class, so that Ray pickles its name and not its code: a replica runs what is installed where it starts."""

    async def __init__(self, options: Mapping[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        """`options`: the fields of Options in app.py. Ready when the models are loaded."""
        engine, qwen = EngineSettings.model_validate(options["engine"]), QwenSettings.model_validate(options["qwen"])
        self._half: Half = halves(engine.name).far(HalfSettings(engine, qwen, options["sandbox"]))
        await self._half.start()

    async def call(self, lane: str, header: dict[str, Any], payload: bytes, client: str, left: float) -> tuple[Any, ...]:
        """("answer", header, payload, seconds of work), or ("refusal", what encode_refusal makes of it).

        An empty `lane` asks only whether it is there. `left`: seconds to the caller's deadline; clocks of machines differ.
        """
        if not lane:
            return ("answer", {}, b"", 0.0)
        caller = Caller(client, asyncio.get_running_loop().time() + left)
        try:
            reply = await self._half.call(lane, header, payload, caller)
        except AlignerError as error:
            return ("refusal", encode_refusal(error))
        except (WorkerDiedError, WorkerTimeoutError):
            return ("refusal", encode_refusal(lost()))
        return ("answer", reply.header, bytes(reply.payload), reply.busy)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For scaling.wanted. Ray asks each replica for it; a coroutine, so that it runs on the loop that has the queues."""
        queues = self._half.queues()
        return {
            "wait": max(queue.oldest_wait for queue in queues),
            "load": sum(queue.running + queue.waiting for queue in queues) / self._half.slots,
        }

    async def __del__(self) -> None:
        """Ray awaits it when the replica has drained."""
        half = getattr(self, "_half", None)
        if half is not None:
            await half.close()
