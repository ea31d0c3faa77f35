"""Exit status 0 if the server is SERVING. Argument: HOST:PORT; default: the listen address of its settings."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_svc.config import Settings
from aligner_svc.config.report import SettingsProblem, load


def main() -> int:
    try:
        address = sys.argv[1] if len(sys.argv) > 1 else load(Settings).settings.server.listen
    except SettingsProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    try:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            request = health_pb2.HealthCheckRequest(service="aligner.v1.Aligner")
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=3)
    except grpc.RpcError as error:
        print(f"{address}: {error.code().name}", file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
    return 0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    raise SystemExit(main())
