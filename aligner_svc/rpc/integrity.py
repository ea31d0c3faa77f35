"""Checks received audio against the size and digest that the client declared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from hmac import compare_digest

from aligner_svc.errors import DataLossError
from aligner_svc.workers import Buffer
from aligner_svc.workers.threads import off_loop


@dataclass(frozen=True, slots=True)
class Declared:
    """What a config declares of the audio. `size` in bytes, 0: undeclared; `sha256`: 32 bytes, or none."""

    size: int = 0
    sha256: bytes = b""

    async def check(self, audio: Buffer) -> None:
        """Check the whole audio. Raises DataLossError, as `Arriving` does."""
        arriving = Arriving(self)
        await arriving.add(audio)
        arriving.finish()


class Arriving:
    """Checks audio that arrives in pieces, without keeping them."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._received = 0
        self._digest = hashlib.sha256() if declared.sha256 else None

    async def add(self, piece: Buffer) -> None:
        """Add the next piece. Raises DataLossError (AUDIO_SURPLUS) as soon as there is more than was declared."""
        size = memoryview(piece).nbytes
        self._received += size
        if 0 < self._declared.size < self._received:
            message = f"more than the {self._declared.size} bytes of audio that the config declares have arrived"
            raise DataLossError("AUDIO_SURPLUS", message, field="audio")
        if self._digest is None:
            return
        await off_loop(self._digest.update, piece, size=size)

    def finish(self) -> None:
        """The audio is complete. Raises DataLossError: AUDIO_INCOMPLETE, AUDIO_DIGEST_MISMATCH."""
        if self._received < self._declared.size:
            message = f"{self._received} of the {self._declared.size} bytes of audio that the config declares have arrived"
            raise DataLossError("AUDIO_INCOMPLETE", message, field="audio")
        if self._digest is not None and not compare_digest(self._digest.digest(), self._declared.sha256):
            message = "the audio that arrived has another SHA-256 than the config declares"
            raise DataLossError("AUDIO_DIGEST_MISMATCH", message, field="audio")
