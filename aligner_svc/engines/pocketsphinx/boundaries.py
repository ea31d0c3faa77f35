"""Moves word edges found by PocketSphinx to where the sound changes.

PocketSphinx marks word edges from 25 ms windows and states tied over many contexts, which leaves edges about 20 ms off. A small
network takes the spectrum in the 400 ms around an edge, the two phones that meet there and the classes of those beside them,
and gives a distribution of the distance to the true edge. Its median, plus an offset for the class of each of the two phones,
is the correction. The offset at a pause, where people mark sounds as they fade in and out, shrinks to 0 as noise hides them.

The network was trained on synthetic speech only, clean, in rooms and in noise (tools/train_boundaries.py); the offsets adapt it
to the marking conventions of hand-labelled speech. data/README.md has the origin of every number.

Needs only numpy. Times are in seconds, levels in dB, signals 16 kHz mono int16.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from typing import IO, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]  # seconds; float32 would be too coarse late in an hour

SAMPLE_RATE: Final = 16_000  # Hz
HOP: Final = 80  # samples: 5 ms
WINDOW: Final = 256  # samples: 16 ms, short enough to show a stop burst
BANDS: Final = 18  # triangular mel bands, 80 Hz to 7.6 kHz
FRAME_OFFSETS: Final = np.concatenate(  # hops around an edge: every 10 ms up to 100 ms, every 20 ms up to 200 ms
    [np.arange(-40, -20, 4), np.arange(-20, 21, 2), np.arange(24, 41, 4)]
)
BIN_WIDTH: Final = 0.005  # s
BINS: Final[Floats] = (np.arange(-24, 25) * BIN_WIDTH).astype(np.float32)  # s, distances: +-120 ms
PROBES: Final[Times] = np.array([-0.02, 0.0, 0.02])  # s: the network runs at each, and the answers are averaged

FLOOR_DB: Final = -50.0  # relative to the loud frames: hides differences between noise floors
SPEECH_DB: Final = -30.0  # relative to the loud frames: frames above it give the mean spectrum
MEAN_REACH: Final = 400  # hops: the mean spectrum is taken over 2 s on each side
_CHUNK: Final = 4096  # frames transformed at a time, to limit the memory of long audio

NOISY_DB: Final = 20.0  # between the 5th and the 95th percentile of the level: what is next to a pause is not audible
QUIET_DB: Final = 40.0  # it is as audible as in the recordings that the offsets were made on

MAX_SHIFT: Final = 0.1  # s: PocketSphinx is rarely further off if it found the word
MIN_WORD: Final = 0.01  # s: no word is made shorter, unless it was

SILENCE: Final = "SIL"
_CLASSES: Final = (
    "SIL",
    "P T K",
    "B D G",
    "CH JH",
    "S SH Z ZH",
    "F TH HH",
    "V DH",
    "M N NG",
    "L R W Y ER",
    "IY IH EH AE AA AO UH UW AH",
    "AY AW OY EY OW",
)
CLASS_OF: Final[dict[str, int]] = {p: i for i, line in enumerate(_CLASSES) for p in line.split()}
N_CLASSES: Final = len(_CLASSES)
PHONES: Final = tuple(CLASS_OF)
_NUMBER_OF: Final = {phone: number for number, phone in enumerate(PHONES)}
SIZES: Final = (N_CLASSES, N_CLASSES, len(PHONES), len(PHONES), N_CLASSES, N_CLASSES)  # of the columns of `contexts`
INPUTS: Final = len(FRAME_OFFSETS) * BANDS + sum(SIZES)


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A word as the decoder placed it. Seconds."""

    start: float
    end: float
    phones: Sequence[str]  # ARPABET, no stress digits; not empty


@dataclass(frozen=True, slots=True)
class Refined:
    """A word with corrected edges. Seconds."""

    start: float
    end: float
    spread: float  # standard deviation of the network's answer at the less certain edge


@dataclass(frozen=True, slots=True)
class Edge:
    """The boundary between two phones, or between a phone and silence."""

    time: float  # seconds
    left: str  # ARPABET phone or SILENCE
    right: str
    before: str  # the phone before the left one, of the same word or the one before; SILENCE on the left side of a pause
    after: str
    ends: int | None  # index of the word that ends here
    starts: int | None  # index of the word that starts here


def edges_of(words: Sequence[WordSpan]) -> list[Edge]:
    """Edges in order. Words that touch share one, so they still touch after its correction."""
    edges: list[Edge] = []

    def add(time: float, ends: int | None, starts: int | None) -> None:
        left = right = before = after = SILENCE
        if ends is not None:
            *head, left = words[ends].phones
            before = head[-1] if head else words[ends - 1].phones[-1] if ends else SILENCE
        if starts is not None:
            right, *tail = words[starts].phones
            after = tail[0] if tail else words[starts + 1].phones[0] if starts + 1 < len(words) else SILENCE
        edges.append(Edge(time, left, right, before, after, ends, starts))

    for i, word in enumerate(words):
        pause = word.start - words[i - 1].end if i else float("inf")
        if pause < 1e-6:
            add((words[i - 1].end + word.start) / 2, i - 1, i)
        else:
            if i:
                add(words[i - 1].end, i - 1, None)
            add(word.start, None, i)
    if words:
        add(words[-1].end, len(words) - 1, None)
    return edges


def _mel_bank() -> Floats:
    """[bins, bands] triangles, each with sum 1; narrow ones are widened to one FFT bin."""
    top, bottom = 2595 * np.log10(1 + 7600 / 700), 2595 * np.log10(1 + 80 / 700)
    corners = 700 * (10 ** (np.linspace(bottom, top, BANDS + 2) / 2595) - 1)
    hz = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
    bank = np.zeros((len(hz), BANDS))
    for i in range(BANDS):
        low, mid, high = corners[i : i + 3]
        rise, fall = max(mid - low, SAMPLE_RATE / WINDOW), max(high - mid, SAMPLE_RATE / WINDOW)
        bank[:, i] = np.clip(np.minimum((hz - mid + rise) / rise, (mid + fall - hz) / fall), 0, None)
    return (bank / bank.sum(0)).astype(np.float32)


_BANK: Final = _mel_bank()
_HANN: Final[Floats] = np.hanning(WINDOW).astype(np.float32)


def spectrum(samples: npt.NDArray[np.int16]) -> Floats:
    """Band levels, [frames, BANDS], in units of 20 dB around the local mean of the speech.

    Frame i is centred on sample i * HOP. Independent of the gain and the colour of a recording.
    """
    half = WINDOW // 2
    padded = np.zeros(len(samples) + WINDOW, np.float32)
    padded[half : half + len(samples)] = samples
    padded /= 32768
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.empty((len(frames), BANDS), np.float32)
    for i in range(0, len(frames), _CHUNK):
        bins = np.fft.rfft(frames[i : i + _CHUNK] * _HANN, axis=1)
        power[i : i + _CHUNK] = (bins.real**2 + bins.imag**2).astype(np.float32) @ _BANK
    loud = float(np.percentile(power.mean(1), 95))
    # 1e-9 is below the rounding noise of 16 bits: it only avoids log(0) in digital silence
    level = 10 * np.log10(power + (loud * 10 ** (FLOOR_DB / 10) + 1e-9))
    speech = (level.mean(1) > 10 * np.log10(loud + 1e-9) + SPEECH_DB).astype(np.float32)
    return ((level - _local_mean(level, speech)) / 20).astype(np.float32)


def quietness(samples: npt.NDArray[np.int16]) -> float:
    """0 where noise fills the pauses, 1 where they are quiet."""
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP).astype(np.float32)
    levels = 10 * np.log10((frames**2).mean(axis=1) + 1)
    span = np.subtract(*np.percentile(levels, [95, 5])) if len(levels) else 0.0
    return float(np.clip((span - NOISY_DB) / (QUIET_DB - NOISY_DB), 0, 1))


def _local_mean(level: Floats, speech: Floats) -> Floats:
    """Mean spectrum of the speech frames nearby, blended with that of the whole where they are few."""
    total = np.zeros((len(level) + 1, BANDS))
    np.cumsum(level * speech[:, None], axis=0, out=total[1:])
    count = np.zeros(len(level) + 1)
    np.cumsum(speech, out=count[1:])
    whole = total[-1] / max(count[-1], 1.0)
    at = np.arange(len(level))
    a, b = np.maximum(at - MEAN_REACH, 0), np.minimum(at + MEAN_REACH, len(level))
    weight = 100.0  # frames for which the whole counts
    sums, counts = total[b] - total[a] + weight * whole, count[b] - count[a] + weight
    return (sums / counts[:, None]).astype(np.float32)


def contexts(edges: Sequence[Edge]) -> npt.NDArray[np.intp]:
    """[edges, 6] numbers: the classes of the phones left and right, these phones, the classes of those beside them.

    Unknown symbols count as silence.
    """
    classes = np.array([[CLASS_OF.get(p, 0) for p in (e.left, e.right, e.before, e.after)] for e in edges], np.intp).reshape(
        -1, 4
    )
    phones = np.array([[_NUMBER_OF.get(p, 0) for p in (e.left, e.right)] for e in edges], np.intp).reshape(-1, 2)
    return np.concatenate([classes[:, :2], phones, classes[:, 2:]], axis=1)


def features(bands: Floats, times: Times, about: npt.NDArray[np.intp]) -> Floats:
    """Network input, [edges, INPUTS], for edges at `times` (s) with the `contexts` `about`."""
    frame = np.rint(times * (SAMPLE_RATE / HOP)).astype(np.intp)[:, None] + FRAME_OFFSETS
    # beyond the ends of the file the outermost frame is repeated
    around = bands[np.clip(frame, 0, len(bands) - 1)].reshape(len(times), len(FRAME_OFFSETS) * BANDS)
    hot = np.zeros((len(times), sum(SIZES)), np.float32)
    hot[np.arange(len(times))[:, None], about + np.cumsum([0, *SIZES[:-1]])] = 1
    return np.concatenate([around, hot], axis=1)


def median_of(weights: Floats) -> Floats:
    """Median (s) of distributions over BINS, [n, bins], linear inside a bin."""
    upto = np.cumsum(weights, axis=1)
    rows = np.arange(len(weights))
    i = np.minimum((upto < 0.5).sum(1), len(BINS) - 1)
    inside = (0.5 - (upto[rows, i] - weights[rows, i])) / np.maximum(weights[rows, i], 1e-9)
    return (BINS[i] + BIN_WIDTH * (np.clip(inside, 0, 1) - 0.5)).astype(np.float32)


def spread_of(weights: Floats) -> Floats:
    """Standard deviation (s) of distributions over BINS, [n, bins]."""
    mean = weights @ BINS
    return np.sqrt(np.maximum(weights @ BINS**2 - mean**2, 0))


def in_order(times: Times, min_gaps: Times, length: float) -> Times:
    """The times in 0..length with times[i+1] - times[i] >= min_gaps[i] whose largest change is smallest."""
    base = np.concatenate([[0.0], np.cumsum(min_gaps)])
    free = np.clip(times - base, 0, max(length - base[-1], 0))
    up = np.maximum.accumulate(free)
    down = np.minimum.accumulate(free[::-1])[::-1]
    return (up + down) / 2 + base


class BoundaryRefiner:
    """Corrects word edges. Immutable after construction, so thread-safe."""

    def __init__(self, parameters: IO[bytes] | None = None) -> None:
        """`parameters`: an .npz file; None: the packaged one. Raises ValueError if its shapes do not match this code."""
        packaged = resources.files(__package__).joinpath("data/boundaries.npz")
        with nullcontext(parameters) if parameters else packaged.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            self._w0, self._b0, self._w1, self._b1, self._offsets = (
                np.asarray(stored[name], np.float32) for name in ("w0", "b0", "w1", "b1", "offsets")
            )
        members, inputs, hidden = self._w0.shape
        if (
            inputs != INPUTS
            or self._b0.shape != (members, hidden)
            or self._w1.shape != (members, hidden, len(BINS))
            or self._b1.shape != (members, len(BINS))
            or self._offsets.shape != (2, N_CLASSES)
        ):
            raise ValueError("the shapes in boundaries.npz do not match this version of the code")

    def refine(self, samples: npt.NDArray[np.int16], words: Sequence[WordSpan]) -> list[Refined]:
        """Corrected edges of each word; `words` are in time order and do not overlap.

        No edge moves by more than MAX_SHIFT. Words stay in order, inside the audio, and at least MIN_WORD long if they were.
        """
        if not words:
            return []
        edges = edges_of(words)
        raw = np.array([e.time for e in edges], np.float64)
        moved: Times = raw
        spreads: Times = np.full(len(raw), BINS[-1], np.float64)
        if len(samples) and np.any(samples):  # digital silence has no edges
            shifts, spreads = self.estimate(samples, edges)
            moved = raw + np.clip(shifts, -MAX_SHIFT, MAX_SHIFT)
        min_gaps = np.array([MIN_WORD if right.ends is not None else 0.0 for right in edges[1:]], np.float64)
        length = len(samples) / SAMPLE_RATE
        moved = in_order(moved, np.minimum(min_gaps, np.maximum(np.diff(raw), 0)), length)
        moved = np.minimum(moved, length)  # affects only words placed after the end of the audio
        starts, ends, widest = [0.0] * len(words), [0.0] * len(words), [0.0] * len(words)
        for edge, time, spread in zip(edges, moved.tolist(), spreads.tolist(), strict=True):
            if edge.ends is not None:
                ends[edge.ends], widest[edge.ends] = time, max(widest[edge.ends], spread)
            if edge.starts is not None:
                starts[edge.starts], widest[edge.starts] = time, max(widest[edge.starts], spread)
        return [Refined(*word) for word in zip(starts, ends, widest, strict=True)]

    def estimate(self, samples: npt.NDArray[np.int16], edges: Sequence[Edge]) -> tuple[Times, Times]:
        """Proposed move of every edge before limits and order are imposed, and its spread: both in seconds."""
        bands, about = spectrum(samples), contexts(edges)
        raw = np.array([e.time for e in edges], np.float64)
        times = (raw[None] + PROBES[:, None]).ravel()
        inputs = features(bands, times, np.tile(about, (len(PROBES), 1)))
        total, spread = np.zeros(len(times)), np.zeros(len(times))
        for w0, b0, w1, b1 in zip(self._w0, self._b0, self._w1, self._b1, strict=True):
            score = np.maximum(inputs @ w0 + b0, 0) @ w1 + b1
            weight = np.exp(score - score.max(1, keepdims=True))
            weight /= weight.sum(1, keepdims=True)
            total += median_of(weight)
            spread += spread_of(weight)
        mean = (total / len(self._w0)).reshape(len(PROBES), -1) + PROBES[:, None]
        offsets = self._offsets.copy()
        offsets[:, CLASS_OF[SILENCE]] *= quietness(samples)
        shifts: Times = mean.mean(0) + offsets[0, about[:, 0]] + offsets[1, about[:, 1]]
        return shifts, (spread / len(self._w0)).reshape(len(PROBES), -1).mean(0)
