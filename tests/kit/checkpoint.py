"""Qwen3-ForcedAligner checkpoints with random weights, which load as the published one does.

What random weights answer must follow the audio and the text, or a comparison of two programs that
run them proves nothing: drawn as a model is initialised, they name one class for every slot. So they
are drawn wider (1.6 / sqrt of the fan-in), the decoder's attention is sharpened (`o_proj` and `q_norm`
times 3) and the `<timestamp>` token, the same at every slot, is made faint (2 %).
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, WhisperFeatureExtractor

from aligner_svc.engines.qwen.modules import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from tests import PROJECT

_AUDIO = ("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>")
_TIMESTAMP = "<timestamp>"

TINY: dict[str, Any] = {
    "audio_config": {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "output_dim": 48}
    | {"downsample_hidden_size": 8, "num_mel_bins": 128, "n_window": 50, "n_window_infer": 800},
    "text_config": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "head_dim": 16, "mrope_section": [4, 2, 2]},
}
TRUE_SIZE: dict[str, Any] = {
    "audio_config": {"d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096}
    | {"output_dim": 1024, "downsample_hidden_size": 480, "num_mel_bins": 128, "n_window": 50, "n_window_infer": 800},
    "text_config": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
    | {"num_key_value_heads": 8, "head_dim": 128, "mrope_section": [24, 20, 20], "vocab_size": 152064},
}
"""Qwen3-ForcedAligner-0.6B: 918 M parameters."""


def build(
    folder: Path, size: dict[str, Any] = TINY, *, dtype: torch.dtype = torch.float32, seed: int = 0, segment_ms: int = 80
) -> Path:
    """Write a checkpoint into `folder` and return it. `segment_ms`: milliseconds a class stands for."""
    tokenizer = _tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*_AUDIO, _TIMESTAMP)}
    config = _config(size, len(tokenizer), ids, segment_ms)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(config, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    _restore_type(folder / "config.json")
    Qwen3ASRProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer).save_pretrained(folder)
    return folder


PUBLISHED = PROJECT.parent / "shared" / "qwen"
"""The published checkpoint's files without its weights, where they lie beside the project."""


def published(folder: Path, size: dict[str, Any] | None = TINY, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Write a checkpoint of the published files and random weights into `folder`; `size` None: the published sizes.

    Skips the test where the published files are absent.
    """
    if not PUBLISHED.is_dir():
        pytest.skip(f"needs the published checkpoint's files in {PUBLISHED}")
    shutil.copytree(PUBLISHED, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for part, values in (size or {}).items():
        own = dict(values)
        if sections := own.pop("mrope_section", None):
            content["thinker_config"][part]["rope_scaling"]["mrope_section"] = sections
        content["thinker_config"][part] |= own
    path.chmod(0o644)
    path.write_text(json.dumps(content), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = _model(Qwen3ASRForConditionalGeneration.config_class.from_pretrained(folder), dtype).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def _model(config: Any, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        model = Qwen3ASRForConditionalGeneration(config).to(dtype)
    model = model.to_empty(device="cpu").eval()
    for name, parameter in model.named_parameters():
        _draw(name, parameter.data)
    embedding = model.thinker.model.embed_tokens.weight.data
    embedding[config.timestamp_token_id] *= 0.02
    return model


def _draw(name: str, weight: torch.Tensor) -> None:
    if weight.dim() == 1:
        weight.fill_(0.0 if name.endswith("bias") else 1.0)
    elif "embed_tokens" in name:
        weight.normal_(std=1.0)
    else:
        weight.normal_(std=1.6 / math.sqrt(weight[0].numel()))
    if "thinker.model.layers" in name and ("o_proj" in name or "q_norm" in name):
        weight *= 3.0


def _config(size: dict[str, Any], vocabulary: int, ids: dict[str, int], segment_ms: int) -> Any:
    text = {"vocab_size": vocabulary, "rope_theta": 1_000_000.0, "max_position_embeddings": 65_536, **size["text_config"]}
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": text.pop("mrope_section")}
    thinker = {
        "model_type": "qwen3_forced_aligner",
        "audio_config": size["audio_config"],
        "text_config": text | {"rope_scaling": rope},
        "audio_start_token_id": ids[_AUDIO[0]],
        "audio_end_token_id": ids[_AUDIO[1]],
        "audio_token_id": ids[_AUDIO[2]],
        "timestamp_token_id": ids[_TIMESTAMP],
        "classify_num": 5000,
    }
    config = Qwen3ASRForConditionalGeneration.config_class(
        thinker_config=thinker, timestamp_token_id=ids[_TIMESTAMP], timestamp_segment_time=segment_ms, support_languages=None
    )
    config.thinker_config.model_type = "qwen3_forced_aligner"
    return config


def _restore_type(path: Path) -> None:
    """Saving writes the class's own model type; the published file has the aligner's, which makes the head one of classes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["thinker_config"]["model_type"] = "qwen3_forced_aligner"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _tokenizer() -> Qwen2TokenizerFast:
    """Byte-level BPE, as the published one: any script can be written in it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    text = [
        "the quick brown fox jumps over the lazy dog and when it had spoken these words it went away",
        "der schnelle braune Fuchs", "le renard brun et rapide", "быстрая коричневая лиса", "敏捷的棕色狐狸", "빠른 갈색 여우",
    ]  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(text, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=raw,
        pad_token="<|endoftext|>",
        extra_special_tokens=dict(zip(("audio_bos_token", "audio_eos_token", "audio_token"), _AUDIO, strict=True)),
    )
    tokenizer.add_tokens([_TIMESTAMP], special_tokens=True)
    return tokenizer
