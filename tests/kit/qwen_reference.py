"""The reference: qwen-asr's own modules, one clip at a time, attention within 8 s as the model was trained.

qwen-asr as it is lets audio tokens see the whole clip unless FlashAttention 2 runs, and makes the spectrogram
of a batch on padded audio: `shipped` is that, `solo` is what both would be without those two mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aligner_svc.engines.qwen.checkpoint import pre_tokenizer
from aligner_svc.text.model_words import load_nagisa

NAMES = {
    "zh": "Chinese", "en": "English", "yue": "Cantonese", "fr": "French", "de": "German", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "ru": "Russian", "es": "Spanish",
}  # fmt: skip


class Timed(NamedTuple):
    """One word; seconds."""

    text: str
    start: float
    end: float


class Reference:
    """A checkpoint in qwen-asr's hands."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        # Here, as every process of a run imports all modules: these take 5 s of processor time and 200 MB.
        load_nagisa()  # before qwen_asr does, in whose thread it would make every subnormal number zero
        from qwen_asr import Qwen3ForcedAligner  # noqa: PLC0415

        self.aligner = Qwen3ForcedAligner.from_pretrained(str(folder), dtype=dtype, device_map=device)
        # qwen-asr asks transformers for Mistral's rule where the vocabulary is the published one.
        self.aligner.processor.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(folder)
        self._tower = self.aligner.model.thinker.audio_tower
        self._plain = {layer: layer.forward for layer in self._tower.layers}

    def shipped(
        self, samples: Sequence[npt.NDArray[np.int16]], texts: Sequence[str], languages: Sequence[str]
    ) -> list[list[Timed]]:
        """`align` as it is, one batch."""
        audio = [(clip.astype(np.float32) / 32768, 16_000) for clip in samples]
        results = self.aligner.align(audio, list(texts), [NAMES[language] for language in languages])
        return [[Timed(item.text, item.start_time, item.end_time) for item in result] for result in results]

    def solo(self, samples: npt.NDArray[np.int16], text: str, language: str) -> list[Timed]:
        """One clip by itself, attention within its windows."""
        self._window(True)
        try:
            return self.shipped([samples], [text], [language])[0]
        finally:
            self._window(False)

    @torch.inference_mode()
    def logits(self, samples: npt.NDArray[np.int16], text: str, language: str) -> torch.Tensor:
        """[slots, classes] of `solo`."""
        aligner = self.aligner
        _, prompt = aligner.aligner_processor.encode_timestamp(text, NAMES[language])
        inputs: Any = aligner.processor(
            text=[prompt], audio=[samples.astype(np.float32) / 32768], return_tensors="pt", padding=True
        )
        self._window(True)
        try:
            logits = aligner.model.thinker(**inputs.to(aligner.model.device).to(aligner.model.dtype)).logits
        finally:
            self._window(False)
        return logits[0][inputs["input_ids"][0] == aligner.timestamp_token_id]

    def _window(self, on: bool) -> None:
        for layer, plain in self._plain.items():
            layer.forward = self._masked(plain) if on else plain

    def _masked(self, plain: Any) -> Any:
        def forward(hidden_states: torch.Tensor, cu_seqlens: torch.Tensor) -> Any:
            mask = self._tower._prepare_attention_mask(hidden_states, cu_seqlens)
            return plain(hidden_states, cu_seqlens, attention_mask=mask)

        return forward
