"""Asks or changes a cluster, `python -m ...ray_serve.admin ADDRESS JSON`, started by local.py. Prints its answer as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def main(address: str, wanted: str) -> None:
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415

    request: Mapping[str, Any] = json.loads(wanted)
    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="error")
    if "deploy" in request:
        from aligner_svc.engines.ray_serve.app import application  # noqa: PLC0415

        given = request["deploy"]
        serve.start(proxy_location="Disabled")  # no HTTP
        serve.run(application(given["options"]), name=given["name"], route_prefix=None)
        answer = _status(ray, serve, given["name"])
    else:
        answer = _status(ray, serve, request["status"]["name"])
    print(json.dumps(answer), flush=True)


def _status(ray: Any, serve: Any, name: str) -> dict[str, Any]:
    nodes = [
        {"address": node["NodeManagerAddress"], "alive": node["Alive"], "cpus": node["Resources"].get("CPU", 0.0)}
        for node in ray.nodes()
    ]
    application = serve.status().applications.get(name)
    found: dict[str, Any] = {"nodes": nodes, "application": None if application is None else str(application.status.value)}
    for deployment in () if application is None else application.deployments.values():
        found["replicas"] = {str(state): count for state, count in deployment.replica_states.items()}
        found["message"] = deployment.message
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
