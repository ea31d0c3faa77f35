"""Some 230 hostile files, made by code when a test asks for them; nothing of it is checked in.

Each is one entry of CORPUS: what makes the bytes, and what may come of them. A new one goes into the module of its family:
pcm (WAV, AIFF, AU, W64, CAF), compressed (FLAC, MP3, AAC, AMR), boxes (MP4, Matroska, WMA), ogg (with the bombs of hours
of silence), foreign (what is no audio, and what is two things at once). `python -m tests.hostile.corpus FOLDER` writes
them out as files, for a fuzzer or another decoder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.hostile.boxes import BOXES
from tests.hostile.compressed import COMPRESSED
from tests.hostile.foreign import FOREIGN
from tests.hostile.good import FORMATS, good
from tests.hostile.hostile import Hostile
from tests.hostile.ogg import OGG
from tests.hostile.pcm import PCM

CORPUS: Final[dict[str, Hostile]] = {**PCM, **COMPRESSED, **BOXES, **OGG, **FOREIGN}


def main(folder: Path) -> None:
    """Write every file out, the hostile and the good."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(CORPUS.values()):
        (folder / f"hostile-{number:03}").write_bytes(case.make())
    for name in FORMATS:
        (folder / f"good-{name}").write_bytes(good(name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
