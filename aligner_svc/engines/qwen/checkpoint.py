"""Loads Qwen3-ForcedAligner through qwen-asr's own classes; reports in one line what is wrong with a checkpoint."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, pre_tokenizers

from aligner_svc.config.engine import PUBLISHED, PUBLISHED_REVISION
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.qwen.modules import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor, transformers_logging
from aligner_svc.engines.qwen.prompt import TIMESTAMP

_FETCHED = ("*.json", "*.txt", "*.safetensors")  # from the hub: never a pickle
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")  # one suffices: the first is made from the second and merges.txt
_QWEN_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""What the published tokenizer merges within: transformers' PRETOKENIZE_REGEX for Qwen2."""
_FRAMES = {"sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
_BUILT_IN: dict[str, dict[str, object]] = {
    "audio_config": {"n_window": 50, "n_window_infer": 800, "activation_function": "gelu"},
    "text_config": {"hidden_act": "silu"},
}
"""What forward.py is written for: half a chunk of the convolutions and the encoder's window (mel frames); activations."""


class CheckpointError(EngineStartError):
    """The checkpoint cannot be used; the message is one line with the reason."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model, and what its input and output mean."""

    thinker: Any  # qwen_asr's Qwen3ASRThinkerForConditionalGeneration, on its device, in eval mode
    tokenizer: Any  # a fast tokenizer of transformers
    audio_tokens: tuple[str, str, str]  # start of audio, one audio token, end of audio
    audio_id: int
    timestamp_id: int
    segment_ms: float  # duration of a class
    max_rows: int  # positions of the decoder
    mel_filters: torch.Tensor  # [frequencies, mels], float32


def load(model: str, device: torch.device, dtype: torch.dtype, revision: str = "") -> Checkpoint:
    """`model`: a folder, or a repository of the Hugging Face hub and the `revision` of it, as in QwenSettings.

    Raises CheckpointError.
    """
    transformers_logging.set_verbosity_error()  # for a missing tensor it logs several lines of advice to train the model
    folder = _folder(model, revision)
    _check_config(_json(folder / "config.json", model), model)
    _check_files(folder, model)
    whole, config = _weights(folder, model, device, dtype)
    processor = _processor(folder, model)
    for part, built_in in _BUILT_IN.items():
        found = {name: getattr(getattr(config.thinker_config, part), name) for name in built_in}
        if found != built_in:
            raise CheckpointError(f"{model}: config.json's {part} has {found}; this engine needs {built_in}")
    frames = {**_FRAMES, "feature_size": config.thinker_config.audio_config.num_mel_bins}
    found = {name: getattr(processor.feature_extractor, name) for name in frames}
    if found != frames:
        raise CheckpointError(f"{model}: preprocessor_config.json has {found}; this engine needs {frames}")
    checkpoint = Checkpoint(
        thinker=whole.thinker.eval().requires_grad_(False),
        tokenizer=processor.tokenizer,
        audio_tokens=(processor.audio_bos_token, processor.audio_token, processor.audio_eos_token),
        audio_id=config.thinker_config.audio_token_id,
        timestamp_id=config.timestamp_token_id,
        segment_ms=float(config.timestamp_segment_time),
        max_rows=config.thinker_config.text_config.max_position_embeddings,
        mel_filters=torch.from_numpy(processor.feature_extractor.mel_filters).to(torch.float32),
    )
    for token, index in ((TIMESTAMP, checkpoint.timestamp_id), (checkpoint.audio_tokens[1], checkpoint.audio_id)):
        if checkpoint.tokenizer.convert_tokens_to_ids(token) != index:
            raise CheckpointError(f"{model}: the tokenizer does not know {token} as token {index}, as config.json says")
    return checkpoint


def _folder(model: str, revision: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or path.exists():
        raise CheckpointError(f"{model}: not a folder; a checkpoint is a folder, or a repository of the Hugging Face hub")
    revision = revision or (PUBLISHED_REVISION if model == PUBLISHED else "main")
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(_FETCHED)))
    except HFValidationError:
        reason = "neither a folder nor the name of a repository of the Hugging Face hub"
    except RevisionNotFoundError:
        reason = f"the repository on the Hugging Face hub has no revision {revision}"
    except RepositoryNotFoundError:
        reason = "there is no such folder, and no such repository on the Hugging Face hub"
    except Exception as error:  # no network, a proxy, a full disk: the hub's client has no common base class
        reason = _not_stored(error) or (
            f"there is no such folder, and the Hugging Face hub was not reached ({type(error).__name__}); "
            "offline, give the folder of a downloaded checkpoint"
        )
    raise CheckpointError(f"{model}: {reason}")


def _not_stored(error: BaseException | None) -> str:
    """What is wrong with the disk, if that is the reason; else ""."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"the disk with the cache {constants.HF_HUB_CACHE} is full; the checkpoint takes 1.9 GB (HF_HOME: another place)"
            )
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"the cache {constants.HF_HUB_CACHE} cannot be written to; set HF_HOME to a folder that can"
        error = error.__cause__ or error.__context__
    return ""


def _json(path: Path, model: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{model}: {path.name} is missing") from None
    except (OSError, ValueError):
        raise CheckpointError(f"{model}: {path.name} cannot be read as JSON") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{model}: {path.name} holds no JSON object")
    return content


def _check_config(config: dict[str, Any], model: str) -> None:
    thinker = config.get("thinker_config")
    kind = thinker.get("model_type") if isinstance(thinker, dict) else None
    if thinker is None and str(config.get("model_type")).startswith("qwen3_"):
        raise CheckpointError(
            f"{model}: a checkpoint in the layout of transformers 5 (-hf), which has other names; use {PUBLISHED}"
        )
    if config.get("model_type") != "qwen3_asr" or "forced_aligner" not in str(kind):
        found = " / ".join(str(part) for part in (config.get("model_type"), kind) if part)
        raise CheckpointError(f"{model}: not a Qwen3 forced aligner: config.json describes {found or 'no model type'}")
    assert isinstance(thinker, dict)
    missing = [name for name in ("timestamp_token_id", "timestamp_segment_time") if not isinstance(config.get(name), int | float)]
    if not isinstance(thinker.get("classify_num"), int):
        missing.append("thinker_config.classify_num")
    if missing:
        raise CheckpointError(f"{model}: config.json lacks {', '.join(missing)}")


def _check_files(folder: Path, model: str) -> None:
    missing = [name for name in ("preprocessor_config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append(" or ".join(_TOKENIZER_FILES))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _json(index, model).get("weight_map")
        if not isinstance(shards, dict):
            raise CheckpointError(f"{model}: {index.name} has no weight_map")
        missing += sorted({str(shard) for shard in shards.values() if not (folder / str(shard)).is_file()})
    elif not (folder / "model.safetensors").is_file():
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(f"{model}: missing from the checkpoint: {', '.join(missing)}")


def _weights(folder: Path, model: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        whole, report = Qwen3ASRForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are reported below by name; otherwise they raise an error without names
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise CheckpointError(f"{model}: the weights are damaged: {error}") from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{model}: the weights do not load: {_one_line(error)}") from None
    if report["mismatched_keys"]:
        name = min(report["mismatched_keys"])
        wanted = tuple(whole.get_parameter(name).shape)
        raise CheckpointError(f"{model}: {name} has another shape than the {wanted} that config.json asks for")
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise CheckpointError(f"{model}: the weights lack {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""))
    try:
        return whole.to(device), whole.config
    except torch.OutOfMemoryError:
        raise CheckpointError(f"{model}: the weights do not fit into the memory of {device}") from None


def _processor(folder: Path, model: str) -> Any:
    try:
        # transformers 4.57 takes every vocabulary of over 100,000 tokens in a local folder for Mistral's. With the flag, which
        # qwen-asr sets, it puts Mistral's rule in place of Qwen's (You|Tube, i|Phone); without it, it logs advice to set it.
        processor = Qwen3ASRProcessor.from_pretrained(folder, fix_mistral_regex=False, local_files_only=True)
        processor.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(folder)
        return processor
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"{model}: the tokenizer or the feature extractor does not load: {_one_line(error)}") from None


def pre_tokenizer(folder: Path) -> Any:
    """What tokenizer.json says, or Qwen's if the checkpoint has none, as the published one."""
    if (folder / _TOKENIZER_FILES[0]).is_file():
        return Tokenizer.from_file(str(folder / _TOKENIZER_FILES[0])).pre_tokenizer
    pieces = pre_tokenizers.Split(Regex(_QWEN_PIECES), "isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _one_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
