"""The model on its device: loads, warms up, computes batches, and finds out whether the device is dead."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from aligner_svc.config.engine import QwenSettings
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.batching import DeviceMemoryError
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.device import (
    PREPARERS,
    compute_exactly,
    is_allocation_failure,
    resolve_device,
    resolve_dtype,
    thread_pool,
)
from aligner_svc.engines.qwen.devices.feed import Input
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item, batch_rows
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.memory import keep_few_kernels
from aligner_svc.engines.qwen.outcome import MAX_SECONDS
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.heap import keep_memory, return_memory

LONG_ROWS = 2048
"""Rows of a batch, a minute and a half of audio, above which its memory is returned to the system. That of others is kept."""
_WARM_ALONE = {"cuda": (1.0, 10.0, 30.0, 120.0, MAX_SECONDS), "cpu": (1.0, 10.0)}
"""Seconds of the clips with which it warms up, so that no call waits for kernels to be chosen."""
_WARM_TOGETHER = {"cuda": (10.0, 30.0), "cpu": (5.0,)}
"""Seconds of the clips of whole batches, and of halves."""
_WARM_ROWS = {"cuda": 1 << 30, "cpu": 256}
"""At most, of these batches: a CPU's kernels for several clips do not depend on how many there are."""
_WARM_WORDS_A_SECOND = 2


class DeviceBrokenError(Exception):
    """The device fails at what is known to work. A CUDA context stays dead after such an error: the process has to end."""


Ready: TypeAlias = Input | Exception
"""A batch on the device, or why there is none, which `Model.run` then finds out."""


class Model:
    """Use it on the thread that made it, but for `prepare`: qwen-asr's modules are not thread-safe."""

    def __init__(self, settings: QwenSettings, share: int = 1) -> None:
        """Load and warm up. `share`: processes that share the CPU's cores, if it is the device. Raises EngineStartError."""
        self.device = resolve_device(settings)
        self.dtype = resolve_dtype(settings, self.device)
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            keep_memory()
            keep_few_kernels()
            torch.set_num_threads(max(1, torch.get_num_threads() // share))
        else:
            compute_exactly()
            torch.cuda.set_device(self.device)  # else pinned memory takes a context on the first GPU
        self._preparers = thread_pool(1 if on_cpu else PREPARERS, "qwen-prepare", cores=1)
        began = time.perf_counter()
        loaded = checkpoint.load(settings.model, self.device, self.dtype, settings.revision)
        self._tokenizer = loaded.tokenizer.backend_tokenizer
        self._preparation = Preparation(loaded, self.dtype, pinned=not on_cpu)
        self._aligner = PackedAligner(loaded)
        self._pulse = torch.zeros(1, device=self.device)
        warming = time.perf_counter()
        try:
            self._probe = self._noise(1.0)
            for seconds, clips in self._shapes(batch_rows(settings, self.device.type), settings.batch_items):
                self._warm([self._noise(seconds)] * clips)
            self._aligner.record(self._noise)
        except Exception as error:
            if not is_allocation_failure(error):
                raise
            raise EngineStartError(f"the memory of {self.device} does not hold {settings.model} and a clip") from None
        self.loaded = DeviceLoaded(
            str(self.device),
            str(self.dtype),
            loaded.segment_ms,
            self._preparation.vocabulary,
            load_seconds=warming - began,
            warm_seconds=time.perf_counter() - warming,
        )

    def tokenizer(self) -> bytes:
        """As tokenizer.json has it."""
        return str(self._tokenizer.to_str()).encode()

    def prepare(self, batch: Sequence[Item]) -> Ready:
        """On any thread, while another batch is computed. Raises nothing."""
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # each thread has its own
            return self._aligner.feed(self._preparation.batch(batch, self._preparers.map))
        except Exception as error:
            return error

    def run(self, ready: Ready) -> list[TimestampSlots]:
        """Raises DeviceMemoryError, DeviceBrokenError, and anything else for a batch that fails on a device that works."""
        long = self.device.type == "cpu" and isinstance(ready, Input) and len(ready.ids) > LONG_ROWS
        if long:
            return_memory()  # shorter batches left free memory in pieces, too small to be used again
        try:
            if isinstance(ready, Exception):
                raise ready
            return self._compute(ready)
        except Exception as error:
            lacks_memory = is_allocation_failure(error)
            failure = error if lacks_memory else _shown(error)
        finally:
            if long:
                return_memory()
        # Outside the handler, and without the traceback: its frames hold tensors, which must be freed before more is tried.
        failure = failure.with_traceback(None)
        self._check_context()
        if lacks_memory:
            raise DeviceMemoryError
        self.check()
        raise failure

    def check(self) -> None:
        """Compute a clip that is known to work. Raises DeviceBrokenError."""
        try:
            self._compute(self._aligner.feed([self._probe]))
        except Exception as error:
            raise DeviceBrokenError(_line(error)) from None

    def _check_context(self) -> None:
        """Try the simplest operations: once an error has destroyed the CUDA context each fails, with the same error."""
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.empty_cache()
            self._pulse.add_(1)
            torch.cuda.synchronize(self.device)
        except Exception as error:
            raise DeviceBrokenError(_line(error)) from None

    def _compute(self, given: Input) -> list[TimestampSlots]:
        answers = self._aligner.answer(given)
        if not all(np.isfinite(slots.probabilities).all() for slots in answers):
            raise RuntimeError("the device computed NaN")  # the batcher finds out for which items
        return answers

    def _shapes(self, rows: int, items: int) -> Iterator[tuple[float, int]]:
        """Seconds and number of the clips of batches like those that the batcher makes."""
        for seconds in _WARM_ALONE[self.device.type]:
            yield seconds, 1
        for seconds in _WARM_TOGETHER[self.device.type]:
            whole = min(items, min(rows, _WARM_ROWS[self.device.type]) // self._noise(seconds).rows)
            yield from ((seconds, clips) for clips in (whole // 2, whole) if clips > 1)

    def _warm(self, batch: Sequence[Prepared]) -> None:
        """Compute it; one of several clips may be too large for the device."""
        try:
            self._compute(self._aligner.feed(batch))
        except Exception as error:
            if len(batch) == 1 or not is_allocation_failure(error):
                raise

    def _noise(self, seconds: float) -> Prepared:
        samples = np.random.default_rng(0).normal(0, 1000, int(seconds * SAMPLE_RATE)).astype(np.int16)
        return self._preparation(samples, ["word"] * max(1, int(seconds * _WARM_WORDS_A_SECOND)))


def _shown(error: Exception) -> Exception:
    """Print the traceback of a failure that has no name here, for the parent's log."""
    traceback.print_exception(error)
    return error


def _line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}"[:300]
