"""The four kinds of RPC methods: the one place that tells them apart."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from interceptors.calls.call import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Unary: TypeAlias = Callable[[Any, Any, Context], Awaitable[Any]]
Stream: TypeAlias = Callable[[Any, Any, Context], AsyncIterator[Any]]

# By (request_streaming, response_streaming): the handler's attribute, its constructor, Prometheus' grpc_type.
_KINDS: Final[Mapping[tuple[bool, bool], tuple[str, Callable[..., Handler], str]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler, "unary"),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler, "client_stream"),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler, "server_stream"),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler, "bidi_stream"),
}


def wrapped(handler: Handler, unary: Unary, stream: Stream, *, raw: bool = False) -> Handler:
    """`handler` with its behaviour run by one of the two functions, each called with (behaviour, request, context).

    `unary` returns one response, `stream` is an async generator of them. With `raw` the request is a stream of bytes, whatever
    the method takes. Raises TypeError for a behaviour that writes a stream of responses to its context, which gRPC accepts too:
    what it writes passes no interceptor.
    """
    name, make, _ = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour = getattr(handler, name)
    if handler.response_streaming and inspect.iscoroutinefunction(behaviour):
        raise TypeError("a method with a stream of responses must be an async generator")
    run: Any = stream if handler.response_streaming else unary
    if raw:
        make = _KINDS[True, handler.response_streaming][1]
    return make(partial(run, behaviour), None if raw else handler.request_deserializer, handler.response_serializer)


def method_types(*services: Any) -> Mapping[str, str]:
    """Every method of the service descriptors, as "/package.Service/Method", with its grpc_type."""
    return {
        f"/{service.full_name}/{method.name}": _KINDS[method.client_streaming, method.server_streaming][2]
        for service in services
        for method in service.methods
    }
