"""The hand-marked recordings used by the benches; they lie beside the checkout and are never part of it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

GOLD = Path(__file__).resolve().parent.parent.parent / "shared" / "gold"
RATE = 16_000

Samples = npt.NDArray[np.int16]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Recording:
    """`words` are {"text", "start", "end"}, seconds."""

    name: str
    audio: Path
    text: str
    words: Rows

    @property
    def speaker(self) -> str:
        return self.name.partition("_")[0]


def recordings(name: str) -> list[Recording]:
    """The set `name`, sorted. Ends the program with a message where the gold folder is missing."""
    if not GOLD.is_dir():
        raise SystemExit(f"the hand-marked recordings are missing: {GOLD}")
    found = []
    for path in sorted((GOLD / name).glob("*.json")):
        gold = json.loads(path.read_text(encoding="utf-8"))
        audio = next(other for other in path.parent.glob(f"{path.stem}.*") if other.suffix != ".json")
        found.append(Recording(path.stem, audio, gold["text"], gold["words"]))
    return found


def score(answers: Mapping[str, Mapping[str, Rows]]) -> str:
    """score.py's table for set -> recording -> words."""
    with tempfile.TemporaryDirectory() as folder:
        for name, files in answers.items():
            (Path(folder) / name).mkdir()
            for stem, words in files.items():
                (Path(folder) / name / f"{stem}.json").write_text(json.dumps({"words": words}), encoding="utf-8")
        command = [sys.executable, str(GOLD / "score.py"), folder, "--gold", str(GOLD), "--sets", ",".join(answers)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def samples(path: Path) -> Samples:
    """16 kHz mono int16."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def wav(audio: Samples) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(audio.tobytes())
    return buffer.getvalue()


def with_noise(audio: Samples, snr_db: float, seed: int) -> Samples:
    """White noise at a signal-to-noise ratio over the whole recording."""
    power = float((audio.astype(np.float64) ** 2).mean())
    noise = np.random.default_rng(seed).normal(0, np.sqrt(power / 10 ** (snr_db / 10)), len(audio))
    return np.clip(np.rint(audio + noise), -32768, 32767).astype(np.int16)
