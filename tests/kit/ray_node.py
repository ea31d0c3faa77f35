"""One more node of a cluster on this machine, `python -m tests.kit.ray_node ADDRESS`: `ray start` refuses it on loopback."""

from __future__ import annotations

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

if __name__ == "__main__":
    address = sys.argv[1]
    parameters = RayParams(
        gcs_address=address,
        redis_address=address,
        node_ip_address="127.0.0.1",
        num_cpus=1,
        num_gpus=0,
        object_store_memory=150 << 20,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        include_log_monitor=False,
        dashboard_agent_listen_port=None,
    )
    node = Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    signal.pause()
