"""Recorded passes answer as plain ones, and are not used if they do not. On a CPU: what is recorded there is Python's work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.attention import Attention, Sequences, one_by_one
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.graphs import BUCKETS

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Clip = Callable[[float, int], Prepared]


def by_ends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """Attention that reads the ends of sequences on the device, as a GPU's kernel does."""
    assert isinstance(lengths, Sequences)
    assert lengths.ends is not None
    at = torch.arange(len(query))
    owner = torch.searchsorted(lengths.ends, at, right=True)
    mask = owner[:, None] == owner
    if causal:
        mask &= at[:, None] >= at
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))
    mixed = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=query.shape[1] != key.shape[1])
    return mixed[0].transpose(0, 1)


class Recorder:
    """Repeats the work with the numbers that Python had when it was recorded. Counts what it repeats."""

    repeated = 0

    def __call__(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def repeat() -> torch.Tensor:
            self.repeated += 1
            return work()

        return repeat


@pytest.fixture(scope="module")
def clip(tiny_checkpoint: Path) -> Clip:
    prepare = Preparation(checkpoint.load(str(tiny_checkpoint), torch.device("cpu"), torch.float32), torch.float32)

    def make(seconds: float, words: int = 0) -> Prepared:
        samples = np.random.default_rng(int(seconds * 10)).normal(0, 1000, int(seconds * SAMPLE_RATE)).astype(np.int16)
        return prepare(samples, ["word"] * (words or max(1, int(2 * seconds))))

    return make


def aligner(folder: Path, attention: Attention) -> PackedAligner:
    return PackedAligner(checkpoint.load(str(folder), torch.device("cpu"), torch.float32), attention, fused=False)


class Both(NamedTuple):
    plain: PackedAligner
    recorded: PackedAligner
    recorder: Recorder


@pytest.fixture(scope="module")
def both(tiny_checkpoint: Path, clip: Clip) -> Both:
    made = Both(aligner(tiny_checkpoint, one_by_one), aligner(tiny_checkpoint, by_ends), Recorder())
    made.recorded.record(clip, made.recorder)
    return made


def test_small_batches_are_repeated_and_answer_as_plain_ones(both: Both, clip: Clip) -> None:
    plain, recorded, recorder = both
    assert recorded.feed.buckets == list(BUCKETS)
    lengths = ([1.0], [1.99], [2.0], [9.3], [8.0, 8.0], [1.5, 3.2, 16.01], [31.9], [8.01])
    batches = [[clip(seconds, 0) for seconds in some] for some in lengths]
    before = recorder.repeated
    for batch in (*batches, *batches[::-1]):  # what another batch left behind changes nothing
        given = recorded.feed(batch)
        assert given.parts.bucket in BUCKETS
        for one, other in zip(recorded(batch), plain(batch), strict=True):
            assert one.classes.tolist() == other.classes.tolist()
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-3)
    assert recorder.repeated - before == 2 * len(batches)


def test_what_no_bucket_holds_is_computed_as_before(both: Both, clip: Clip) -> None:
    plain, recorded, recorder = both
    before = recorder.repeated
    for batch in ([clip(0.5, 0)], [clip(33.0, 0)], [clip(1.0, 0)] * 9, [clip(5.0, 400)]):
        assert recorded.feed(batch).parts.bucket is None
        for one, other in zip(recorded(batch), plain(batch), strict=True):
            assert one.classes.tolist() == other.classes.tolist()
    assert recorder.repeated == before


def test_a_recording_that_keeps_a_length_is_not_used(tiny_checkpoint: Path, clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    recorded = aligner(tiny_checkpoint, one_by_one)  # which reads the lengths in Python
    recorded.record(clip, Recorder())
    assert recorded.feed.buckets == []
    assert "recorded passes are not used for 2 s and more: its answer differs" in caplog.text


def test_what_cannot_be_recorded_is_computed_as_before(
    tiny_checkpoint: Path, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    def record(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    recorded = aligner(tiny_checkpoint, by_ends)
    recorded.record(clip, record)
    assert recorded.feed.buckets == []
    assert "not used for 2 s and more: operation not permitted" in caplog.text
    assert len(recorded([clip(2.0, 0)])) == 1


def test_a_bucket_has_a_row_and_windows_to_spare() -> None:
    for bucket in BUCKETS:
        assert bucket.windows >= 8 + -(-bucket.tokens // 104) + 1
