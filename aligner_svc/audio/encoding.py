"""How the bytes of a recording are to be read."""

from __future__ import annotations

from enum import Enum


class Encoding(Enum):
    """CONTAINER is recognised by its first bytes; the others have no header, so the caller declares rate and channels."""

    CONTAINER = "CONTAINER"
    LINEAR16 = "LINEAR16"
    """16-bit signed little-endian samples."""
    FLOAT32 = "FLOAT32"
    """32-bit IEEE little-endian samples, full scale at 1.0."""
    MULAW = "MULAW"
    """8-bit G.711 mu-law samples."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel; 0 for a container."""
        return {"LINEAR16": 2, "FLOAT32": 4, "MULAW": 1}.get(self.value, 0)
