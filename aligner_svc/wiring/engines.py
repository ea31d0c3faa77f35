"""Builds the engine that the settings name."""

from __future__ import annotations

import pkgutil

from aligner_svc.config import Settings
from aligner_svc.config.engine import ENGINES
from aligner_svc.config.limits import Limits
from aligner_svc.engines.base import Build, Engine, OnFailed
from aligner_svc.engines.batch_report import BatchWatch
from aligner_svc.engines.pocketsphinx.languages import table
from aligner_svc.errors import StartError
from aligner_svc.text.model_words import LANGUAGES as QWEN_LANGUAGES

OTHER_LANGUAGES = {
    "Qwen3-ForcedAligner": QWEN_LANGUAGES,
    "pocketsphinx with ALIGNER_ENGINE__LANGUAGES=all": table.served("all"),
}
"""Languages by the engine that aligns them, for clients who ask for one that the engine in use does not know."""


def build_engine(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> Engine:
    """Torch is imported only for the engine that needs it. Raises StartError."""
    name = settings.engine.name
    try:
        build: Build = pkgutil.resolve_name(ENGINES[name])
    except ModuleNotFoundError as error:
        message = f"the engine {name} needs {error.name}, which is not installed: pip install 'aligner-svc[{name}]'"
        raise StartError(message) from None
    return build(settings, on_failed, watch)


def accepted(limits: Limits, engine: Engine) -> Limits:
    """`limits`, with no longer audio than the engine takes."""
    if engine.max_seconds is None:
        return limits
    return limits.model_copy(update={"audio_seconds": min(limits.audio_seconds, engine.max_seconds)})
