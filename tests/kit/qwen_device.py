"""The process of a device without a model, which starts in no time: worker.py with a stub for what needs torch.

SIGUSR1 destroys its context: from then on every computation fails, as with CUDA. `DTYPE` bf16 makes a start that is refused.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.qwen.devices import worker
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item
from aligner_svc.engines.qwen.prompt import TIMESTAMP, Vocabulary
from aligner_svc.engines.qwen.timestamps import TimestampSlots

_TOKENS = ("<audio>", "<pad>", "</audio>", TIMESTAMP)
_UNKNOWN = "[UNK]"
VOCABULARY = Vocabulary((_TOKENS[0], _TOKENS[1], _TOKENS[2]), 1, 100_000)


def tokenizer() -> bytes:
    made = Tokenizer(models.WordLevel({name: n for n, name in enumerate((*_TOKENS, _UNKNOWN))}, unk_token=_UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(list(_TOKENS))
    return made.to_str().encode()


class DeviceBrokenError(Exception):
    pass


class Model:
    """Its times follow from the number of samples."""

    broken = False

    def __init__(self, settings: QwenSettings, share: int) -> None:
        if settings.dtype == "bf16":
            raise EngineStartError(f"{settings.device} of {share}: no such precision")
        signal.signal(signal.SIGUSR1, self._destroy)
        self.loaded = DeviceLoaded("cpu", "none", 1.0, VOCABULARY, load_seconds=0.0, warm_seconds=0.0)

    def tokenizer(self) -> bytes:
        return tokenizer()

    def prepare(self, batch: Sequence[Item]) -> Sequence[Item]:
        return batch

    def run(self, batch: Sequence[Item]) -> list[TimestampSlots]:
        time.sleep(0.01)
        self.check()
        return [self._answer(len(item.samples), int(np.count_nonzero(item.ids == _TOKENS.index(TIMESTAMP)))) for item in batch]

    def check(self) -> None:
        if self.broken:
            raise DeviceBrokenError("CUDA error: an illegal memory access was encountered")

    def _destroy(self, *_: Any) -> None:
        self.broken = True

    @staticmethod
    def _answer(samples: int, slots: int) -> TimestampSlots:
        return TimestampSlots(np.arange(slots) + samples % 100, np.full(slots, 0.5, np.float32))


if __name__ == "__main__":
    stub: Any = ModuleType("model")
    stub.Model, stub.DeviceBrokenError = Model, DeviceBrokenError
    sys.modules["aligner_svc.engines.qwen.devices.model"] = stub
    worker.main(*sys.argv[1:])
