"""Which files belong together: audio and the text beside it, one file or a tree of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aligner_svc.cli.failures import Failure

AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp3",
    ".mp4", ".oga", ".ogg", ".opus", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
})  # fmt: skip
"""Names that are taken for audio in a directory; the server itself looks at the bytes alone."""

TEXT_SUFFIXES = (".txt", ".lab")
"""Names of transcripts, the preferred first."""


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """One file to align and where the answer goes."""

    audio: Path
    text: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tree holds, sorted: the jobs, and what is not paired."""

    jobs: list[CorpusJob]
    audio_without_text: list[Path]
    text_without_audio: list[Path]


def text_beside(audio: Path) -> Path | None:
    """The transcript with the audio's name, if there is one."""
    return next((text for suffix in TEXT_SUFFIXES if (text := audio.with_suffix(suffix)).is_file()), None)


def read_text(path: Path) -> str:
    """A transcript, UTF-8. Line ends stay as they are: the words' offsets count them. Raises Failure, OSError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(str(path), why=f"not UTF-8 text (byte {error.start})", hint="convert it, e.g. with iconv") from None


def plan(root: Path, out: Path, suffix: str) -> Plan:
    """Pair every audio file below `root` with its text; answers go below `out`, the tree kept, with `suffix`."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    audio = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    # a.wav and a.flac side by side would both write a.json.
    stems = Counter(path.with_suffix("") for path in audio)
    jobs, lonely, used = [], [], set()
    for path in audio:
        text = text_beside(path)
        if text is None:
            lonely.append(path)
            continue
        used.add(path.with_suffix(""))
        name = path.stem if stems[path.with_suffix("")] == 1 else path.name
        jobs.append(CorpusJob(path, text, out / path.relative_to(root).with_name(name + suffix)))
    texts = [path for path in files if path.suffix in TEXT_SUFFIXES and path.with_suffix("") not in used]
    return Plan(jobs, lonely, list(_not_below(texts, out)))


def _not_below(paths: list[Path], out: Path) -> Iterator[Path]:
    """Without what an earlier run wrote, where `out` lies in the tree itself."""
    for path in paths:
        if not path.resolve().is_relative_to(out.resolve()):
            yield path
