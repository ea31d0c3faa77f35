"""The application on the cluster: what a replica needs, how many there are, and how they are replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from aligner_svc.config import Settings
from aligner_svc.engines.ray_serve.replica import Replica

_SCALING: Final = "aligner_svc.engines.ray_serve.scaling:QueueWait"
_DEPLOYMENT: Final = "replica"
_LANES: Final = 2
_PROBES: Final = 64
"""Room for those of the servers, beside the calls."""


@dataclass(frozen=True, slots=True)
class Options:
    """As plain values: they travel to the replicas, and `application` gets them from a file for Kubernetes."""

    engine: Mapping[str, Any]
    qwen: Mapping[str, Any]
    sandbox: str
    min_replicas: int
    max_replicas: int
    cpus: int
    gpus: int
    queue_wait: float
    drain: float
    release: str = ""
    """Replicas are replaced, one after the other, when this or anything else here changes."""

    @classmethod
    def of(cls, settings: Settings, release: str = "") -> Options:
        """From the settings of the server."""
        ray = settings.ray
        engine = settings.engine.model_copy(update={"name": ray.engine, "workers": ray.cpus})
        return cls(
            engine.model_dump(mode="json"),
            settings.qwen.model_dump(mode="json"),
            settings.decode.sandbox,
            ray.min_replicas,
            ray.max_replicas,
            ray.cpus,
            ray.gpus,
            ray.queue_wait,
            ray.drain,
            release,
        )


def application(options: Mapping[str, Any]) -> Any:
    """A Ray Serve application (`import_path` of a RayService); `options`: the fields of Options."""
    from ray import serve  # noqa: PLC0415
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy  # noqa: PLC0415

    given = Options(**options)
    waiting = int(given.engine["queue"])
    scaling = AutoscalingConfig(
        min_replicas=given.min_replicas,
        max_replicas=given.max_replicas,
        initial_replicas=given.min_replicas,
        policy=AutoscalingPolicy(policy_function=_SCALING, policy_kwargs={"target": given.queue_wait}),
        metrics_interval_s=1.0,
        look_back_period_s=2.0,
        upscale_delay_s=1.0,
        downscale_delay_s=10.0,
    )
    deployment = serve.deployment(Replica).options(
        name=_DEPLOYMENT,
        ray_actor_options={"num_cpus": given.cpus, "num_gpus": given.gpus},
        autoscaling_config=scaling,
        # The replica's own queue refuses, with a reason; Ray's retries with pauses of up to 0.5 s.
        max_ongoing_requests=_LANES * (given.cpus + waiting) + _PROBES,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=given.drain,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        logging_config={"enable_access_log": False},  # a line a call: the server's own log has it
    )
    return deployment.bind(asdict(given))
