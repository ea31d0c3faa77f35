"""The engine that the settings name, and what it makes of the limits."""

from __future__ import annotations

from collections.abc import Callable

from aligner_svc.config import Settings
from aligner_svc.config.limits import Limits
from aligner_svc.engines.base import Engine, EngineStartError
from aligner_svc.engines.batching import BatchWatch
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine


def build_engine(settings: Settings, on_failed: Callable[[str | None], None], watch: BatchWatch | None) -> Engine:
    """The engine the settings name. torch is imported for the one that needs it alone. Raises EngineStartError."""
    if settings.engine.name == "pocketsphinx":
        return PocketSphinxEngine(settings.engine, settings.decode.sandbox, watch)
    try:
        from aligner_svc.engines.qwen.engine import QwenEngine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"the engine qwen needs {error.name}, which is not installed: pip install 'aligner-svc[qwen]'"
        raise EngineStartError(message) from None
    return QwenEngine(settings.engine, settings.qwen, on_failed, watch)


def accepted(limits: Limits, engine: Engine) -> Limits:
    """What is accepted: what the settings allow and the engine can do."""
    if engine.max_seconds is None:
        return limits
    return limits.model_copy(update={"audio_seconds": min(limits.audio_seconds, engine.max_seconds)})
