"""Messages between the engine and the processes of its devices: raw arrays, described by the JSON header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from aligner_svc.config.engine import QwenSettings
from aligner_svc.domain import Caller
from aligner_svc.engines.qwen.prompt import Vocabulary
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.workers.frames import Buffer, JsonValue

_ID, _SAMPLE = np.dtype(np.int32), np.dtype(np.int16)
_CLASS, _PROBABILITY = np.dtype(np.int32), np.dtype(np.float32)
_NOBODY = Caller()
_ROWS = {"cuda": 32_768, "cpu": 1_024}
"""Decoder rows of a batch. Some 16,000 keep a GPU busy, 200 two cores; more only add waiting time."""


def batch_rows(settings: QwenSettings, device_type: str) -> int:
    """Rows of the decoder that a batch has at most, but for one clip that has more."""
    return settings.batch_tokens or _ROWS[device_type]


@dataclass(frozen=True, slots=True)
class Item:
    """One clip and its prompt."""

    samples: npt.NDArray[np.int16]
    ids: npt.NDArray[np.int32]
    caller: Caller = _NOBODY

    @property
    def rows(self) -> int:
        """Rows of the decoder: the clip's cost."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return self.samples.nbytes + self.ids.nbytes


@dataclass(frozen=True, slots=True)
class DeviceLoaded:
    """What a device's process says when it is ready. `load_seconds`, `warm_seconds`: its start, without the imports."""

    device: str
    dtype: str
    segment_ms: float
    vocabulary: Vocabulary
    load_seconds: float
    warm_seconds: float
    warnings: Sequence[str] = ()
    """Lines for the log."""

    @property
    def device_type(self) -> str:
        """Either "cpu" or "cuda"."""
        return self.device.partition(":")[0]

    def greeting(self) -> dict[str, JsonValue]:
        return asdict(self)

    @classmethod
    def of(cls, greeting: Mapping[str, JsonValue]) -> DeviceLoaded:
        values = dict(cast("Mapping[str, Any]", greeting))
        vocabulary = values.pop("vocabulary")
        opening, audio, closing = vocabulary["audio_tokens"]
        known = Vocabulary((opening, audio, closing), vocabulary["audio_id"], vocabulary["max_rows"])
        return cls(**values, vocabulary=known)


def encode_batch(items: Sequence[Item]) -> tuple[dict[str, JsonValue], Buffer]:
    """All ids, then all samples."""
    header: dict[str, JsonValue] = {"clips": [[len(item.ids), len(item.samples)] for item in items]}
    return header, b"".join([*(item.ids.data.cast("B") for item in items), *(item.samples.data.cast("B") for item in items)])


def decode_batch(header: Mapping[str, Any], payload: Buffer) -> list[Item]:
    """Views of `payload`."""
    rows, samples = np.array(header["clips"], dtype=np.int64).reshape(-1, 2).T
    end = int(rows.sum()) * _ID.itemsize
    ids = np.frombuffer(payload[:end], dtype=_ID)
    wave = np.frombuffer(payload[end:], dtype=_SAMPLE)
    pairs = zip(np.split(wave, samples.cumsum()[:-1]), np.split(ids, rows.cumsum()[:-1]), strict=True)
    return [Item(clip, prompt) for clip, prompt in pairs]


def encode_answer(answers: Sequence[TimestampSlots]) -> tuple[dict[str, JsonValue], Buffer]:
    """All classes, then all probabilities."""
    classes = np.concatenate([slots.classes for slots in answers]).astype(_CLASS)
    probabilities = np.concatenate([slots.probabilities for slots in answers]).astype(_PROBABILITY)
    return {"slots": [len(slots.classes) for slots in answers]}, classes.tobytes() + probabilities.tobytes()


def decode_answer(header: Mapping[str, Any], payload: Buffer) -> list[TimestampSlots]:
    """Raises ValueError if the sizes do not match."""
    ends = np.cumsum(np.array(header["slots"], dtype=np.int64))
    size = int(ends[-1]) * _CLASS.itemsize
    classes = np.frombuffer(payload[:size], dtype=_CLASS).astype(np.int64)
    probabilities = np.frombuffer(payload[size:], dtype=_PROBABILITY)
    pairs = zip(np.split(classes, ends[:-1]), np.split(probabilities, ends[:-1]), strict=True)
    return [TimestampSlots(one, other) for one, other in pairs]
