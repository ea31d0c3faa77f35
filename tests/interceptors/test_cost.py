"""What a call costs the event loop beside its own work: a task or a timer more for each would be a tenth of all guards' time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from interceptors import Overload, Quota, Requests, chain
from interceptors.access_log import AccessLog
from interceptors.metrics import RpcMetrics
from interceptors.overload.admission import Priority
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.quota.classes_text import parse
from interceptors.quota.stores.memory import MemoryStore

METHOD = "/test.Test/Method"
CLASSES = parse("[classes.default]\nbytes_per_minute = 1e9\ncalls_in_flight = 9\n", "quotas.toml")


class Context:
    """Of a call whose messages arrive one in each turn of the event loop."""

    def __init__(self, *messages: object) -> None:
        self.messages = list(messages)
        self.trailing: tuple[tuple[str, str], ...] = ()

    def __getattr__(self, name: str) -> Any:
        """What a call without a deadline, an error or a client that leaves says: nothing."""
        return lambda: None

    def peer(self) -> str:
        return "ipv4:192.0.2.1:4711"

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.trailing

    def set_trailing_metadata(self, trailing: tuple[tuple[str, str], ...]) -> None:
        self.trailing = trailing

    async def read(self) -> object:
        await asyncio.sleep(0)
        return self.messages.pop(0)


async def test_a_call_starts_no_task_and_sets_one_timer_however_many_messages_it_has(monkeypatch) -> None:
    async def concatenated(requests: Any, context: Any) -> bytes:
        return b"".join([request async for request in requests])

    quota = Quota(MemoryStore(), lambda: CLASSES, estimate=lambda: lambda message: 0.1, streams={METHOD}, exempt=())
    overload = Overload(AdaptiveLimit(LimitRules()), exempt=(), priority=lambda call: Priority.NORMAL)
    guards = chain(
        "test",
        max_metadata_entries=10,
        max_metadata_bytes=1000,
        metrics=RpcMetrics(CollectorRegistry(), {METHOD: "client_stream"}),
        access_log=AccessLog(),
        record=lambda event: None,
        quota=quota,
        overload=overload,
        requests=Requests(),
    )
    handler: Any = grpc.stream_unary_rpc_method_handler(concatenated)
    for guard in reversed(tuple(guards)):
        handler = guard.wrap(METHOD, handler)

    begun: list[str] = []
    loop = asyncio.get_running_loop()
    for name in ("create_task", "call_at"):
        plain = getattr(loop, name)
        monkeypatch.setattr(
            loop, name, lambda *given, name=name, plain=plain, **named: begun.append(name) or plain(*given, **named)
        )
    context = Context(*[bytes(300_000)] * 5, grpc.aio.EOF)
    assert len(await handler.stream_unary(None, context)) == 5 * 300_000
    assert begun == ["call_at"]
