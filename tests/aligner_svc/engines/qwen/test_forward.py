"""A clip gets the words and times that qwen-asr's own modules give it alone, whatever else is in its batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint, forward
from aligner_svc.engines.qwen.devices import feed
from aligner_svc.engines.qwen.devices.mel import MIN_SAMPLES, LogMel
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.prompt import HOP, tokens_after
from aligner_svc.engines.qwen.timestamps import TimestampSlots, repair
from aligner_svc.text import model_words as words
from tests.kit import qwen_material
from tests.kit.qwen_material import LANGUAGES, Pair
from tests.kit.qwen_reference import NAMES, Reference, Timed

pytestmark = pytest.mark.usefixtures("one_torch_thread")

_SEED = 1
_TIE = 1e-5
"""Two classes whose logits are closer (share of the largest) may swap with another CPU's rounding."""
_WINDOW = 8 * SAMPLE_RATE
_BORDERS = [
    int(0.06 * SAMPLE_RATE), int(0.2 * SAMPLE_RATE), int(0.99 * SAMPLE_RATE), SAMPLE_RATE - 1, SAMPLE_RATE,
    SAMPLE_RATE + 159, int(1.01 * SAMPLE_RATE), int(7.99 * SAMPLE_RATE), _WINDOW, _WINDOW + 80, int(8.01 * SAMPLE_RATE),
    _WINDOW + 161, int(15.99 * SAMPLE_RATE), 2 * _WINDOW, 2 * _WINDOW + 159, int(16.01 * SAMPLE_RATE), 60 * SAMPLE_RATE,
    60 * SAMPLE_RATE,
]  # fmt: skip


class Ours(NamedTuple):
    """The parts of the engine."""

    prepare: Preparation
    align: PackedAligner
    segment_ms: float

    def prepared(self, pair: Pair) -> Prepared:
        return self.prepare(pair.samples, _words(pair))

    def timed(self, pair: Pair, slots: TimestampSlots) -> list[Timed]:
        times = repair([float(index * self.segment_ms) for index in slots.classes]).times
        seconds = iter([round(time / 1000, 3) for time in times])
        return [Timed(word, next(seconds), next(seconds)) for word in _words(pair)]


def _words(pair: Pair) -> list[str]:
    return [token.spoken[0] for token in words.split(pair.text, pair.language)]


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    assert one.shape == other.shape
    return ((one - other).abs().max() / other.abs().max()).item()


def _lead(logits: torch.Tensor) -> float:
    """Of the best class over the second, where it is smallest, as a share of the largest number."""
    best, second = logits.topk(2, -1).values.unbind(-1)
    return ((best - second).min() / logits.abs().max()).item()


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(str(tiny_checkpoint), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def ours(loaded: checkpoint.Checkpoint) -> Ours:
    return Ours(Preparation(loaded, torch.float32), PackedAligner(loaded), loaded.segment_ms)


@pytest.fixture(scope="module")
def audio_id(loaded: checkpoint.Checkpoint) -> int:
    return loaded.audio_id


class Sample(NamedTuple):
    """A pair and the reference model's logits for it: [slots, classes]."""

    pair: Pair
    logits: torch.Tensor


@pytest.fixture(scope="module")
def samples(reference: Reference) -> list[Sample]:
    """Without the few for which the reference itself is undecided between two classes."""
    counts = [*_BORDERS, *qwen_material.log_uniform(_SEED, 36, 0.2, 12), *qwen_material.log_uniform(_SEED, 8, 12, 45)]
    drawn = [Sample(pair, reference.logits(*pair)) for pair in qwen_material.pairs(_SEED, counts, words_a_second=1.0)]
    return [sample for sample in drawn if _lead(sample.logits) > _TIE]


@pytest.fixture(scope="module")
def material(samples: list[Sample]) -> list[Pair]:
    return [sample.pair for sample in samples]


@pytest.fixture(scope="module")
def solo(reference: Reference, material: list[Pair]) -> list[list[Timed]]:
    """The reference's words and times."""
    return [reference.solo(*pair) for pair in material]


@pytest.fixture(scope="module")
def alone(ours: Ours, material: list[Pair]) -> list[TimestampSlots]:
    """The answer for each alone."""
    return [ours.align([ours.prepared(pair)])[0] for pair in material]


def _of(material: Sequence[Pair], *, longer_than: int = 0, at_most: int = 60 * SAMPLE_RATE) -> list[Pair]:
    return [pair for pair in material if longer_than < len(pair.samples) <= at_most]


# Parity with the reference


def test_the_material_covers_all_cases(material: list[Pair]) -> None:
    assert len(material) >= 55
    assert {pair.language for pair in material} == set(LANGUAGES) == words.LANGUAGES
    assert len(_of(material, longer_than=_WINDOW)) > 14
    assert len(_of(material, longer_than=55 * SAMPLE_RATE)) >= 2
    assert len(_of(material, at_most=SAMPLE_RATE)) > 12
    assert sum(len(pair.samples) % HOP != 0 for pair in material) > 25
    assert all(_words(pair) for pair in material)


def test_words_and_times_equal_the_reference(
    material: list[Pair], alone: list[TimestampSlots], solo: list[list[Timed]], ours: Ours
) -> None:
    got = [ours.timed(pair, slots) for pair, slots in zip(material, alone, strict=True)]
    assert [place for place, (one, other) in enumerate(zip(got, solo, strict=True)) if one != other] == []
    assert got == solo


def test_logits_equal_the_reference(samples: list[Sample], ours: Ours) -> None:
    apart = [_apart(ours.align.logits([ours.prepared(sample.pair)]), sample.logits) for sample in samples]
    assert max(apart) < 1e-4


@pytest.mark.parametrize("order", ["given", "shuffled"])
def test_a_batch_does_not_change_the_answers(order: str, material: list[Pair], alone: list[TimestampSlots], ours: Ours) -> None:
    """In batches of eight, in any order."""
    places = list(range(len(material)))
    if order == "shuffled":
        random.Random(_SEED).shuffle(places)
    for first in range(0, len(places), 8):
        batch = places[first : first + 8]
        for place, slots in zip(batch, ours.align([ours.prepared(material[place]) for place in batch]), strict=True):
            assert slots.classes.tolist() == alone[place].classes.tolist()
            np.testing.assert_allclose(slots.probabilities, alone[place].probabilities, rtol=1e-3)


def test_the_logits_of_a_batch_equal_those_of_its_clips(material: list[Pair], ours: Ours) -> None:
    items = [ours.prepared(pair) for pair in material[:8]]
    together = ours.align.logits(items).split([item.slots for item in items])
    for item, logits in zip(items, together, strict=True):
        assert _apart(logits, ours.align.logits([item])) < 1e-5


# The comparisons are meaningful


def test_answers_follow_the_audio_and_the_words(material: list[Pair], alone: list[TimestampSlots], ours: Ours) -> None:
    """Otherwise the comparisons above would compare constants."""
    assert len({index for slots in alone for index in slots.classes.tolist()}) > 150
    rich = [slots.classes for slots in alone if len(slots.classes) >= 20]
    assert len(rich) > 12
    assert all(len(set(classes.tolist())) >= 5 for classes in rich)
    one, two = [pair for pair in material if pair.language == "en" and len(pair.samples) > 2 * SAMPLE_RATE][:2]
    for place, pair in enumerate((one, two)):
        other = (two, one)[place]
        base, (heard,), (read,) = (
            ours.align([ours.prepared(variant)])
            for variant in (pair, pair._replace(samples=other.samples), pair._replace(text=pair.text.replace("a", "o")))
        )
        assert (base[0].classes != heard.classes).mean() > 0.3
        assert (base[0].classes != read.classes).mean() > 0.1


def test_attention_without_windows_changes_the_answers(
    samples: list[Sample], ours: Ours, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "windows", lambda count: [count])
    apart = [_apart(ours.align.logits([ours.prepared(pair)]), logits) for pair, logits in samples]
    longer = [len(pair.samples) >= _WINDOW + HOP for pair, _ in samples]
    assert [share > 1e-2 for share in apart] == longer
    changed = [_classes(ours, pair) != _classes_of(logits) for pair, logits in samples if len(pair.samples) > 10 * SAMPLE_RATE]
    assert np.mean(changed) > 0.9


def test_spectrograms_of_padded_audio_change_the_answers(samples: list[Sample], ours: Ours) -> None:
    """In a padded batch a clip that ends within a frame has one frame more, and sometimes one audio token."""
    uneven = [(pair, logits) for pair, logits in samples if len(pair.samples) % HOP]
    padded = [ours.prepared(pair._replace(samples=np.pad(pair.samples, (0, -len(pair.samples) % HOP)))) for pair, _ in uneven]
    assert all(_apart(ours.align.logits([item]), logits) > 1e-4 for item, (_, logits) in zip(padded, uneven, strict=True))
    changed = [
        ours.align([item])[0].classes.tolist() != _classes_of(logits) for item, (_, logits) in zip(padded, uneven, strict=True)
    ]
    assert np.mean(changed) > 0.1


def _classes(ours: Ours, pair: Pair) -> list[int]:
    return ours.align([ours.prepared(pair)])[0].classes.tolist()


def _classes_of(logits: torch.Tensor) -> list[int]:
    return logits.argmax(-1).tolist()


def test_qwen_asr_as_shipped_attends_across_windows(material: list[Pair], solo: list[list[Timed]], reference: Reference) -> None:
    """Unless FlashAttention 2 is installed, which needs a GPU. The reference does not."""
    both = [(pair, timed) for pair, timed in zip(material, solo, strict=True) if pair.language in {"en", "ja", "ru"}]
    other = {
        len(pair.samples): reference.shipped([pair.samples], [pair.text], [pair.language])[0] != timed for pair, timed in both
    }
    assert not any(differs for count, differs in other.items() if count <= _WINDOW)
    assert np.mean([differs for count, differs in other.items() if count > 10 * SAMPLE_RATE]) > 0.5


def test_answers_of_qwen_asr_as_shipped_depend_on_the_batch(
    material: list[Pair], solo: list[list[Timed]], reference: Reference
) -> None:
    """It makes the spectrogram of padded audio. No clip here is longer than a window."""
    short = [(pair, timed) for pair, timed in zip(material, solo, strict=True) if len(pair.samples) <= _WINDOW][:60]
    longest = max((pair for pair, _ in short), key=lambda pair: len(pair.samples))
    together = [
        reference.shipped([pair.samples, longest.samples], [pair.text, longest.text], [pair.language, longest.language])[0]
        for pair, _ in short
    ]
    assert any(one != timed for one, (_, timed) in zip(together, short, strict=True))


# The parts


@pytest.mark.parametrize("count", [MIN_SAMPLES, 320, 960, 15_999, 16_000, 16_001, 128_000, 128_161, 160_160, 480_000, 480_123])
def test_frames_equal_those_of_the_extractor(count: int, tiny_checkpoint: Path, loaded: checkpoint.Checkpoint) -> None:
    extractor = WhisperFeatureExtractor.from_pretrained(tiny_checkpoint)
    samples = qwen_material.audio(np.random.default_rng(count), count)
    wanted = extractor(
        samples.astype(np.float32) / 32768, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_tensors="pt"
    )
    frames = LogMel(loaded.mel_filters, torch.device("cpu"))(torch.from_numpy(samples))
    assert frames.shape == (128, count // HOP)
    torch.testing.assert_close(frames, wanted["input_features"][0], rtol=0, atol=1e-6)


def test_frames_of_silence() -> None:
    silence = LogMel(torch.rand(201, 128), torch.device("cpu"))(torch.zeros(16_000, dtype=torch.int16))
    assert silence.unique().tolist() == [-1.5]


def test_the_number_of_audio_tokens_equals_that_of_qwen_asr(reference: Reference) -> None:
    module = __import__("sys").modules[type(reference.aligner.processor).__module__]
    counts = torch.arange(1, 30_001)
    wanted = module._get_feat_extract_output_lengths(counts)
    assert [tokens_after(frames) for frames in counts.tolist()] == wanted.tolist()


@pytest.mark.parametrize(("count", "lengths"), [(0, []), (1, [1]), (104, [104]), (105, [104, 1]), (312, [104, 104, 104])])
def test_lengths_of_windows(count: int, lengths: list[int]) -> None:
    assert feed.windows(count) == lengths


def test_the_prompt_equals_that_of_the_reference(material: list[Pair], ours: Ours, reference: Reference) -> None:
    for pair in material[::5]:
        _, prompt = reference.aligner.aligner_processor.encode_timestamp(pair.text, NAMES[pair.language])
        wave = pair.samples.astype(np.float32) / 32768
        wanted = reference.aligner.processor(text=[prompt], audio=[wave], return_tensors="pt", padding=True)
        item = ours.prepared(pair)
        assert item.ids.tolist() == wanted["input_ids"][0].tolist()
        assert item.rows == len(item.ids)
        assert item.slots == 2 * len(_words(pair)) == (item.ids == reference.aligner.timestamp_token_id).sum()


@pytest.mark.parametrize("language", ["en", "ja", "ko"])
def test_the_models_markup_in_a_transcript_is_only_text(language: str, ours: Ours, audio_id: int, reference: Reference) -> None:
    """A caller can neither add timestamps nor have letters taken for audio."""
    text = "<timestamp> a<|audio_pad|>b <|endoftext|> \uff1ctimestamp\uff1e <tim'estamp> <time\u00adstamp><|audio_end|>"
    pair = Pair(qwen_material.audio(np.random.default_rng(0), 3 * SAMPLE_RATE), text, language)
    item = ours.prepared(pair)
    assert (item.ids == reference.aligner.timestamp_token_id).sum() == item.slots == 2 * len(_words(pair))
    assert (item.ids == audio_id).sum() == tokens_after(300)
    assert ours.timed(pair, ours.align([item])[0]) == reference.solo(*pair)


def test_probabilities_are_the_softmax_of_float32(ours: Ours) -> None:
    """For more timestamps than go through the softmax at a time."""
    chance = np.random.default_rng(0)
    item = ours.prepare(qwen_material.audio(chance, 60 * SAMPLE_RATE), ["word", "another"] * 300)
    assert item.slots > forward._HEAD_ROWS["cpu"]
    logits = ours.align.logits([item]).double()
    (slots,) = ours.align([item])
    wanted, index = logits.softmax(-1).max(-1)
    assert slots.classes.tolist() == index.tolist()
    np.testing.assert_allclose(slots.probabilities, wanted.numpy(), rtol=1e-5)


def test_a_clip_without_words_does_not_affect_the_others(material: list[Pair], ours: Ours) -> None:
    """The engine never sends one; here alone, and between two others."""
    idle = ours.prepare(material[0].samples, [])
    assert [len(slots.classes) for slots in ours.align([idle])] == [0]
    one, two = (ours.prepared(pair) for pair in material[3:5])
    answers = ours.align([one, idle, two])
    assert [len(slots.classes) for slots in answers] == [one.slots, 0, two.slots]
    assert answers[2].classes.tolist() == ours.align([two])[0].classes.tolist()


def test_half_precision(tiny_checkpoint: Path, material: list[Pair]) -> None:
    """Random weights amplify rounding, so only this: it runs, in that precision, and gives probabilities."""
    loaded = checkpoint.load(str(tiny_checkpoint), torch.device("cpu"), torch.bfloat16)
    half = Ours(Preparation(loaded, torch.bfloat16), PackedAligner(loaded), loaded.segment_ms)
    item = half.prepared(material[len(_BORDERS)])
    assert item.chunks.dtype == half.align.dtype == torch.bfloat16
    assert half.align.logits([item]).dtype == torch.float32
    (slots,) = half.align([item])
    assert slots.probabilities.dtype == np.float32
    assert ((slots.probabilities > 0) & (slots.probabilities <= 1)).all()


def test_no_gradients_are_recorded(ours: Ours, material: list[Pair]) -> None:
    assert not ours.align.logits([ours.prepared(material[0])]).requires_grad


def test_read_only_samples_are_accepted(ours: Ours, audio_id: int) -> None:
    """Those of a decoder are views of what a worker process sent."""
    samples = np.frombuffer(np.zeros(SAMPLE_RATE, np.int16).tobytes(), np.int16)
    assert not samples.flags.writeable
    assert tokens_after(100) == (ours.prepare(samples, ["a"]).ids == audio_id).sum()


def test_a_batch_is_copied_to_the_device_in_two_parts(ours: Ours, material: list[Pair]) -> None:
    """Whatever the number of its clips: on a GPU each copy would be waited for."""
    items = [Item(pair.samples, ours.prepare(pair.samples, _words(pair)).ids) for pair in material[:6]]
    batch = ours.prepare.batch(items)
    given = ours.align.feed(batch)
    assert given.chunks is batch[0].batch
    indices = (given.ids, given.positions, given.audio, given.slots, given.kept, given.windows.ends, given.rows.ends)
    assert len({part.untyped_storage().data_ptr() for part in indices if part is not None}) == 1
    assert given.rows.ends is not None
    assert given.rows.ends.tolist() == np.cumsum([0, *(item.rows for item in batch)]).tolist()
    both = ours.align(batch), ours.align([ours.prepare(pair.samples, _words(pair)) for pair in material[:6]])
    for one, other in zip(*both, strict=True):
        assert one.classes.tolist() == other.classes.tolist()
    swapped = ours.align(batch[::-1])[::-1]  # no longer as they lie in their buffer
    assert [slots.classes.tolist() for slots in swapped] == [slots.classes.tolist() for slots in both[0]]
