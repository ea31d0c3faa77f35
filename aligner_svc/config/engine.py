"""Settings of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from aligner_svc.config.limits import available_cores
from aligner_svc.config.section import Section, one_of

ENGINES = {
    "pocketsphinx": "aligner_svc.engines.pocketsphinx.engine:build",
    "qwen": "aligner_svc.engines.qwen.engine:build",
    "ray": "aligner_svc.engines.ray_serve.engine:build",
}
"""By name, the function that builds the engine; see aligner_svc.engines.base.Build. Imported only for the engine in use."""

REMOTE = {
    "pocketsphinx": "aligner_svc.engines.halves.pocketsphinx",
    "qwen": "aligner_svc.engines.halves.qwen",
}
"""Engines whose processes may be on other machines, and the module with the two halves; see aligner_svc.engines.halves.Halves."""

PUBLISHED = "Qwen/Qwen3-ForcedAligner-0.6B"
PUBLISHED_REVISION = "c7cbfc2048c462b0d63a45797104fc9db3ad62b7"
"""What this engine was written for; a later commit may have other files."""


class EngineSettings(Section):
    """The alignment engine."""

    name: Annotated[str, AfterValidator(one_of("engine", ENGINES))] = Field(
        "pocketsphinx",
        description="pocketsphinx: English, and other languages approximately, on any CPU; qwen: Qwen3-ForcedAligner, 11; ray: "
        "one of them on a Ray cluster",
    )
    languages: Literal["measured", "all"] = Field(
        "measured",
        description="languages besides English (pocketsphinx): measured on real speech, or all that can be pronounced",
    )
    workers: int = Field(
        default_factory=available_cores,
        ge=1,
        le=1024,
        description="aligner processes for short recordings, and as many for long ones from the first on (pocketsphinx)",
    )
    queue: int = Field(64, ge=1, le=1_000_000, description="maximum calls waiting for the engine; others are refused")
    streams: int = Field(
        64,
        ge=1,
        le=1_000_000,
        description="maximum recordings that are aligned while they arrive; others are refused when they begin (pocketsphinx)",
    )


class QwenSettings(Section):
    """The Qwen3-ForcedAligner engine."""

    model: str = Field(
        PUBLISHED,
        min_length=1,
        description="checkpoint: a directory or a Hugging Face repository",
    )
    revision: str = Field(
        "",
        max_length=100,
        description=f"commit, tag or branch of the repository; default: {PUBLISHED_REVISION[:7]} of {PUBLISHED}, main of another",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cuda:all|cpu(,cpu)*|cuda(:\d{1,3})?(,cuda:\d{1,3})*)$",
        description="cpu, cuda, cuda:N, several as cuda:0,cuda:1, or cuda:all: a process for each; auto: cuda if available",
    )
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="precision of weights and arithmetic; auto: bf16 if the device multiplies it natively, else fp32"
    )
    batch_tokens: int = Field(
        0, ge=0, le=10_000_000, description="maximum decoder rows per batch; 0: 32768 on a GPU, 1024 on a CPU"
    )
    batch_items: int = Field(128, ge=1, le=10_000, description="maximum calls per batch")


class RaySettings(Section):
    """A Ray cluster that has the engine's processes."""

    address: str = Field(
        "127.0.0.1:6379",
        pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$",
        description="HOST:PORT of the cluster's head; a node of the cluster has to run on this machine",
    )
    directory: Path = Field(
        Path("aligner-ray"),
        description="token and certificates of the cluster, made by aligner cluster up; who reads them runs code on every node",
    )
    application: str = Field(
        "aligner", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the application on the cluster, one for each engine"
    )
    engine: Annotated[str, AfterValidator(one_of("engine for a cluster", REMOTE))] = Field(
        "pocketsphinx", description="the engine that its replicas run"
    )
    min_replicas: int = Field(2, ge=1, le=10_000, description="replicas that run without any load")
    max_replicas: int = Field(20, ge=1, le=10_000, description="replicas at most")
    cpus: int = Field(1, ge=1, le=256, description="cores of a replica, each with an aligner process")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of a replica (qwen)")
    queue_wait: float = Field(0.25, gt=0, le=60, description="seconds that calls may wait at the replicas before there are more")
    start_timeout: float = Field(60, ge=1, le=3600, description="seconds in which a server that starts waits for the cluster")
    drain: float = Field(
        120,
        ge=1,
        le=86_400,
        description="seconds that a replica which is to go may take for its calls; one is a window of a recording",
    )
