"""Bounds what the door begins between two looks of the event loop at its other callers.

A handshake takes 0.5 ms of the loop and a refused request 1 ms, and neither needs a credential. 300 connections that all had
requests held it for 0.1 s and more at each of the ten or so steps of a health check over gRPC, which took 1.1 to 1.5 s. With
turns it takes 0.3 s.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """`most` begin in each round of the event loop, first come first served.

    What a flood of one kind must not delay has turns of its own.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._counting = False

    async def take(self) -> None:
        """Wait for a turn; it is not given back."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_round)
        if self._left:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_round(self) -> None:
        self._left = self._most
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # who waited may have been cancelled
                turn.set_result(None)
                self._left -= 1
        self._counting = self._left < self._most
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_round)
