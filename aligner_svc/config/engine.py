"""Settings of the engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from aligner_svc.config.limits import available_cores
from aligner_svc.config.section import Section, one_of

ENGINES = {
    "pocketsphinx": "aligner_svc.engines.pocketsphinx.engine:build",
    "qwen": "aligner_svc.engines.qwen.engine:build",
}
"""By name, the function that builds the engine; see aligner_svc.engines.base.Build. Imported only for the engine in use."""

PUBLISHED = "Qwen/Qwen3-ForcedAligner-0.6B"
PUBLISHED_REVISION = "c7cbfc2048c462b0d63a45797104fc9db3ad62b7"
"""What this engine was written for; a later commit may have other files."""


class EngineSettings(Section):
    """The alignment engine."""

    name: Annotated[str, AfterValidator(one_of("engine", ENGINES))] = Field(
        "pocketsphinx",
        description="pocketsphinx: English, and other languages approximately, on any CPU; qwen: Qwen3-ForcedAligner, 11",
    )
    languages: Literal["measured", "all"] = Field(
        "measured",
        description="languages besides English (pocketsphinx): measured on real speech, or all that can be pronounced",
    )
    workers: int = Field(
        default_factory=available_cores,
        ge=1,
        le=1024,
        description="aligner processes for short recordings, and as many for long ones (pocketsphinx)",
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
