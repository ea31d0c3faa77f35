"""The grpc.health.v1 service of this server."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1.health import aio as health_aio


class GrpcHealth(health_aio.HealthServicer):
    """Ends every Watch once `leaving` is set: a client never ends one by itself, and the drain would wait for its whole grace."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        watching = asyncio.create_task(super().Watch(request, context))
        leaving = asyncio.create_task(self.leaving.wait())
        try:
            await asyncio.wait((watching, leaving), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
        finally:
            watching.cancel()
            leaving.cancel()
