"""The boundary refiner on signals whose edges are known by construction."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest

from aligner_svc.engines.pocketsphinx import boundaries as bd
from aligner_svc.engines.pocketsphinx.boundaries import (
    MAX_SHIFT,
    SAMPLE_RATE,
    BoundaryRefiner,
    Refined,
    WordSpan,
    edges_of,
    in_order,
)

Samples = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def refiner() -> BoundaryRefiner:
    return BoundaryRefiner()


def times(words: list[Refined]) -> list[tuple[float, float]]:
    return [(word.start, word.end) for word in words]


def hiss(seconds: float, level: float, seed: int = 1) -> npt.NDArray[np.float64]:
    """High-passed noise, like an S."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE) + 1)
    return level * np.diff(noise)


def hum(seconds: float, level: float) -> npt.NDArray[np.float64]:
    """Harmonics of 120 Hz with peaks at 700 and 1200 Hz, like an AA."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    out = np.zeros(len(t))
    for k in range(1, 30):
        f = 120 * k
        gain = 0.05 + 1 / (1 + ((f - 700) / 150) ** 2) + 0.7 / (1 + ((f - 1200) / 150) ** 2)
        out += gain * np.sin(2 * np.pi * f * t + k)
    return level * out / np.abs(out).max()


def silence(seconds: float) -> npt.NDArray[np.float64]:
    return np.random.default_rng(2).standard_normal(int(seconds * SAMPLE_RATE)) * 3


def pcm(*parts: npt.NDArray[np.float64]) -> Samples:
    return np.rint(np.clip(np.concatenate(parts), -32000, 32000)).astype(np.int16)


HISS_THEN_HUM = pcm(silence(0.5), hiss(0.4, 3000), hum(0.5, 9000), silence(0.5))
TRUE = (0.5, 0.9, 1.4)


@pytest.mark.parametrize("off", [-0.03, 0.03])
@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_edges_move_towards_the_change_of_sound(refiner: BoundaryRefiner, off: float, gain: float) -> None:
    samples = np.rint(HISS_THEN_HUM * gain).astype(np.int16)
    a, b, c = (t + off for t in TRUE)
    (start, middle), (again, _) = times(refiner.refine(samples, [WordSpan(a, b, ("S",)), WordSpan(b, c, ("AA",))]))
    assert middle == again
    assert abs(start - TRUE[0]) < 0.018
    assert abs(middle - TRUE[1]) < 0.018


def test_gain_hardly_affects_the_edges(refiner: BoundaryRefiner) -> None:
    words = [WordSpan(0.47, 0.93, ("S",)), WordSpan(0.93, 1.43, ("AA",))]
    loud = times(refiner.refine(HISS_THEN_HUM, words))
    quiet = times(refiner.refine((HISS_THEN_HUM // 4).astype(np.int16), words))
    np.testing.assert_allclose(loud, quiet, atol=0.003)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(16_000, np.int16),
        np.zeros(0, np.int16),
        np.ones(1, np.int16),
        pcm(hum(0.01, 9000)),
        np.full(16_000, 32767, np.int16),
        np.tile(np.array([32767, -32768], np.int16), 8000),
    ],
    ids=["digital silence", "empty", "one sample", "10 ms", "direct current", "full scale"],
)
def test_degenerate_audio_gives_edges_in_order(refiner: BoundaryRefiner, samples: Samples) -> None:
    length = len(samples) / SAMPLE_RATE
    words = [WordSpan(0.0, length / 2, ("S", "T")), WordSpan(length / 2, length, ("AA", "N"))]
    edges = np.array(times(refiner.refine(samples, words))).ravel()
    assert np.isfinite(edges).all()
    assert (np.diff(edges) >= 0).all()
    assert edges[0] >= 0
    assert edges[-1] <= length


def test_no_words(refiner: BoundaryRefiner) -> None:
    assert refiner.refine(HISS_THEN_HUM, []) == []


def test_unknown_phones_are_accepted(refiner: BoundaryRefiner) -> None:
    assert len(refiner.refine(HISS_THEN_HUM, [WordSpan(0.5, 1.4, ("??", ""))])) == 1


def test_order_limits_and_minimum_length(refiner: BoundaryRefiner) -> None:
    rng = np.random.default_rng(5)
    phones = [p for p in bd.CLASS_OF if p != bd.SILENCE]
    for seed in range(20):
        samples = pcm(silence(0.3), hiss(0.3, 4000, seed), hum(0.4, 8000), hiss(0.2, 900, seed), silence(0.3))
        ticks = np.sort(rng.choice(np.arange(1, len(samples) // 80), 24, replace=False)) * 0.005
        words = []
        for i in range(0, 22, 2):
            end = ticks[i + 2] if rng.random() < 0.5 else ticks[i + 1]  # half of the words touch the next
            words.append(WordSpan(float(ticks[i]), float(end), [str(p) for p in rng.choice(phones, int(rng.integers(1, 4)))]))
        raw = np.array([(w.start, w.end) for w in words])
        new = np.array(times(refiner.refine(samples, words)))
        assert (np.abs(new - raw) <= MAX_SHIFT + 1e-9).all()
        assert (np.diff(new.ravel()) >= -1e-9).all()
        assert (new[:, 1] - new[:, 0] >= np.minimum(bd.MIN_WORD, raw[:, 1] - raw[:, 0]) - 1e-9).all()
        touching = raw[1:, 0] == raw[:-1, 1]
        assert (new[1:, 0][touching] == new[:-1, 1][touching]).all()


def test_an_audible_edge_has_less_spread_than_an_inaudible_one(refiner: BoundaryRefiner) -> None:
    (audible,) = refiner.refine(HISS_THEN_HUM, [WordSpan(0.5, 0.9, ("S",))])
    (inaudible,) = refiner.refine(pcm(hiss(1.4, 3000)), [WordSpan(0.5, 0.9, ("S",))])
    assert 0 < audible.spread < inaudible.spread


def test_the_offset_at_a_pause_vanishes_in_noise() -> None:
    file, offsets = io.BytesIO(), np.zeros((2, bd.N_CLASSES))
    offsets[:, 0] = 0.02
    shapes = {"w0": (1, bd.INPUTS, 1), "b0": (1, 1), "w1": (1, 1, len(bd.BINS)), "b1": (1, len(bd.BINS))}
    np.savez(file, **{name: np.zeros(shape) for name, shape in shapes.items()}, offsets=offsets)
    file.seek(0)
    refiner, words = BoundaryRefiner(file), [WordSpan(0.5, 0.9, ("S",)), WordSpan(0.9, 1.4, ("AA",))]
    assert times(refiner.refine(HISS_THEN_HUM, words)) == [pytest.approx((0.52, 0.9)), pytest.approx((0.9, 1.42))]
    noise = np.random.default_rng(4).integers(-3000, 3000, len(HISS_THEN_HUM)).astype(np.int16)
    assert times(refiner.refine(HISS_THEN_HUM + noise, words)) == [pytest.approx((0.5, 0.9)), pytest.approx((0.9, 1.4))]


def test_the_same_input_gives_the_same_edges(refiner: BoundaryRefiner) -> None:
    words = [WordSpan(0.5, 0.9, ("S",)), WordSpan(0.9, 1.4, ("AA",))]
    assert refiner.refine(HISS_THEN_HUM, words) == BoundaryRefiner().refine(HISS_THEN_HUM, words)


def test_long_audio_is_transformed_in_pieces() -> None:
    frames = bd._CHUNK + 300
    samples = np.random.default_rng(3).integers(-3000, 3000, frames * bd.HOP).astype(np.int16)
    whole = bd.spectrum(samples)
    assert whole.shape == (frames + 1, bd.BANDS)
    assert np.isfinite(whole).all()
    assert abs(float(whole[bd._CHUNK - 20 : bd._CHUNK + 20].mean())) < 0.05


def test_edges_between_words_and_pauses() -> None:
    edges = edges_of([WordSpan(0.1, 0.2, ("K", "T")), WordSpan(0.2, 0.3, ("AH", "N")), WordSpan(0.4, 0.5, ("S", "IY"))])
    assert [(e.left, e.right) for e in edges] == [("SIL", "K"), ("T", "AH"), ("N", "SIL"), ("SIL", "S"), ("IY", "SIL")]
    assert [(e.before, e.after) for e in edges] == [("SIL", "T"), ("K", "N"), ("AH", "SIL"), ("SIL", "IY"), ("S", "SIL")]
    assert [(e.ends, e.starts) for e in edges] == [(None, 0), (0, 1), (1, None), (None, 2), (2, None)]


def test_in_order_moves_as_little_as_possible() -> None:
    times = in_order(np.array([0.0, 0.2, 0.1, 0.3]), np.array([0.0, 0.02, 0.0]), 1.0)
    np.testing.assert_allclose(times, [0.0, 0.14, 0.16, 0.3])


def test_in_order_respects_both_ends() -> None:
    times = in_order(np.array([-0.02, -0.01, 1.0, 1.1]), np.array([0.01, 0.0, 0.01]), 1.0)
    np.testing.assert_allclose(times, [0.0, 0.01, 0.99, 1.0])


def test_parameters_of_another_shape_are_refused() -> None:
    file = io.BytesIO()
    np.savez(
        file,
        w0=np.zeros((1, 3, 2)),
        b0=np.zeros((1, 2)),
        w1=np.zeros((1, 2, 49)),
        b1=np.zeros((1, 49)),
        offsets=np.zeros((2, 11)),
    )
    file.seek(0)
    with pytest.raises(ValueError, match="do not match"):
        BoundaryRefiner(file)
