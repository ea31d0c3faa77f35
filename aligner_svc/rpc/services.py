"""The gRPC services of the server and their methods, as "/package.Service/Method"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from aligner_client.api.v1 import aligner_pb2
from aligner_svc.rpc.described import descriptor_set
from interceptors.handlers.kinds import method_types

_ALIGNER = aligner_pb2.DESCRIPTOR.services_by_name["Aligner"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

ALIGNER: Final[str] = _ALIGNER.full_name
HEALTH: Final[str] = _HEALTH.full_name
METHOD_TYPES: Final[Mapping[str, str]] = method_types(_ALIGNER, _HEALTH, _REFLECTION)
"""Every method with its grpc_type."""
SERVED: Final = frozenset(METHOD_TYPES)
EXEMPT: Final = frozenset(method_types(_HEALTH))
"""Open to everyone and not counted: health checks come without credentials."""
API: Final = descriptor_set(*(file.DESCRIPTOR.name for file in (aligner_pb2, health_pb2, error_details_pb2)))
"""What callers see. The details of errors too, which grpcurl prints as bytes otherwise."""
LARGEST: Final[Mapping[str, int]] = {
    **dict.fromkeys(EXEMPT, 256),
    **dict.fromkeys(method_types(_REFLECTION), 4096),
    f"/{ALIGNER}/GetServerInfo": 256,
}
"""Bytes of the largest valid request of methods that take no audio: a name, or nothing."""
STREAMS: Final = frozenset({f"/{ALIGNER}/StreamAlign"})
"""Uploads in chunks."""
