"""Words and samples that nothing else contains, and a search for them in every form in which something may have kept them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.kit.recordings import TRANSCRIPT, samples, wav

WORDS = ("zyxquorv", "blenthip", "mufakand")
"""In no dictionary: they go through every part that looks for pronunciations."""
_RUN = 16
"""Samples, 32 bytes of them: a run of them is searched for in several places of the recording."""
_PLACES = 8
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Forms:
    """What to search for, and what it is: `exact` bytes, and `text` in lower case, which is found in any case."""

    exact: dict[bytes, str] = field(default_factory=dict)
    text: dict[bytes, str] = field(default_factory=dict)

    def add(self, raw: bytes, name: str) -> None:
        """`raw` as it is, in hexadecimal, escaped, and in the three ways in which base64 can be shifted."""
        self.exact[raw] = name
        self.text[raw.hex().encode()] = f"{name} in hexadecimal"
        self.text[repr(raw)[2:-1].lower().encode()] = f"{name} escaped"
        for shift in range(3):
            encoded = base64.b64encode(bytes(shift) + raw)
            # The characters that no neighbour has a part in.
            first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
            self.exact[encoded[first:last]] = f"{name} in base64"

    def kept_in(self, content: bytes) -> set[str]:
        """Name what the content has."""
        lowered = content.lower()
        found = {name for form, name in self.exact.items() if form in content}
        return found | {name for form, name in self.text.items() if form in lowered}

    def kept_under(self, folders: Iterable[Path]) -> list[str]:
        """Search all files, names included. Returns "PATH: what", for a person."""
        found = []
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                content = str(path.relative_to(folder)).encode()
                if path.is_file() and not path.is_symlink():
                    assert path.stat().st_size < _LARGEST, path
                    content += b"\n" + path.read_bytes()
                found += [f"{path}: {name}" for name in sorted(self.kept_in(content))]
        return found


@dataclass(frozen=True)
class Canary:
    """`audio`: a WAV of 16 kHz, in which the recording is spoken over noise drawn for it; `transcript`: with WORDS at its end."""

    audio: bytes
    transcript: str

    def forms(self) -> Forms:
        """Everything to search for."""
        found = Forms()
        for word in WORDS:
            found.add(word.encode(), word)
            for codec in ("utf-8", "utf-16-le", "utf-16-be"):
                found.text[word.encode(codec)] = f"{word} in {codec}"
        for name, value in (("transcript", self.transcript.encode()), ("audio", self.audio)):
            found.add(hashlib.sha256(value).digest(), f"SHA-256 of the {name}")
        for run in self._runs():
            found.add(run.tobytes(), "samples")
            found.add((run.astype("<f4") / 32768).tobytes(), "samples as floats")
        return found

    def _runs(self) -> Iterator[npt.NDArray[np.int16]]:
        data = np.frombuffer(self.audio[44:], "<i2")
        for place in range(_PLACES):
            at = (place * 2 + 1) * len(data) // (_PLACES * 2)
            yield data[at : at + _RUN]


def canary(seed: int = 17) -> Canary:
    """The noise is at -50 dB, so that the speech can still be aligned."""
    noise = np.random.default_rng(seed).integers(-100, 100, len(samples()), np.int16)
    return Canary(wav(samples() // 2 + noise), f"{TRANSCRIPT} {' '.join(WORDS)}")
