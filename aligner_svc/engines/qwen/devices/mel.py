"""Log-mel spectrograms, equal to those of the checkpoint's Whisper feature extractor for a single clip."""

from __future__ import annotations

import torch
from torch.nn import functional

from aligner_svc.engines.qwen.prompt import HOP

WINDOW = 400  # samples
MIN_SAMPLES = WINDOW // 2 + 1  # fewer cannot be mirrored at the edges
_FLOOR, _RANGE = 1e-10, 8.0
_FRAMES = 1000
"""Computed at a time: intermediate results then stay in a CPU's caches, and a long clip takes a third of the memory. The bits are
the same: a frame depends on no other but the loudest."""


class LogMel:
    """int16 samples to frames. Thread-safe."""

    def __init__(self, filters: torch.Tensor, device: torch.device) -> None:
        """`filters`: [frequencies, mels], float32, the extractor's `mel_filters`."""
        self._filters = filters.to(device, torch.float32).T.contiguous()
        self._window = torch.hann_window(WINDOW, device=device)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """int16 samples [n], 16 kHz, at least MIN_SAMPLES, to float32 [mels, n // HOP].

        Of a single clip: its own loudest frame limits the dynamic range, and no padding to a longer clip adds a frame.
        """
        wave = samples.to(self._window.device).to(torch.float32) / 32768.0
        wave = functional.pad(wave[None], (WINDOW // 2, WINDOW // 2), mode="reflect")[0]
        frames = len(samples) // HOP
        log = wave.new_empty((len(self._filters), frames))
        for start in range(0, frames, _FRAMES):
            end = min(start + _FRAMES, frames)
            part = wave[start * HOP : (end - 1) * HOP + WINDOW]
            spectrum = torch.stft(part, WINDOW, HOP, window=self._window, center=False, return_complex=True)
            power = spectrum.abs() ** 2  # not real^2 + imag^2: this gives the extractor's bits exactly
            log[:, start:end] = functional.threshold(self._filters @ power, _FLOOR, _FLOOR).log10_()
        return torch.maximum(log, log.max() - _RANGE, out=log).add_(4.0).div_(4.0)
