"""Pairing audio files with their transcripts, for one file or a directory tree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from aligner_svc.cli.failures import Failure

AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mp3",
    ".mp4", ".nist", ".oga", ".ogg", ".opus", ".sph", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
})  # fmt: skip
"""Suffixes of the files in a directory that are taken for audio. The server itself goes by the content only."""

_CHANNELS = "01234567"
_VARIANT = re.compile(r"\(\d+\)\Z")
"""Behind a word of such a dictionary, for its second and further pronunciations."""
TEXT_SUFFIXES = (".txt", ".lab")
"""Suffixes of transcripts, the preferred one first."""


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """One file to align: the audio, its transcript and the file for the result."""

    audio: Path
    text: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of a directory tree and its files without a counterpart, sorted."""

    jobs: list[CorpusJob]
    audio_without_text: list[Path]
    text_without_audio: list[Path]


def text_beside(audio: Path) -> Path | None:
    """The transcript with the name of the audio file, if it exists; its suffix may be in capitals, as in older corpora."""
    names = (audio.with_suffix(suffix) for small in TEXT_SUFFIXES for suffix in (small, small.upper(), small.title()))
    return next((text for text in names if text.is_file()), None)


def is_done(out: Path) -> bool:
    """Whether the result is there. Files are written whole or not at all; one without a byte was made by something else."""
    return out.is_file() and out.stat().st_size > 0


def read_text(path: Path) -> str:
    """Read a transcript, UTF-8. Keeps line ends, because character offsets count them. Raises Failure, OSError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(str(path), why=f"not UTF-8 text (byte {error.start})", hint="convert it, e.g. with iconv") from None


def channels(given: Sequence[str]) -> dict[int, str]:
    """Transcripts by channel, of arguments N=FILE. Raises typer.BadParameter, Failure, OSError."""
    found: dict[int, str] = {}
    for argument in given:
        number, _, name = argument.partition("=")
        if len(number) != 1 or number not in _CHANNELS or not Path(name).is_file():
            raise typer.BadParameter(f"{argument} is not N=FILE, a channel from 0 to 7 and a file", param_hint="--channel")
        if int(number) in found:
            raise typer.BadParameter(f"channel {number} has two transcripts", param_hint="--channel")
        found[int(number)] = read_text(Path(name))
    return found


def pronunciations(path: Path | None) -> dict[str, str] | None:
    """Of a file with a word and its sounds in each line, as dictionaries of CMU have them. Raises Failure, OSError."""
    if path is None:
        return None
    found: dict[str, str] = {}
    for line in read_text(path).splitlines():
        said, *_ = line.partition("#")  # dictionaries of CMU have comments behind the sounds, and older ones ;;; before a line
        if not said.strip() or said.startswith(";;;"):
            continue
        word, *sounds = said.split()
        word = _VARIANT.sub("", word)
        if not sounds:
            raise Failure(str(path), why=f"no sounds for {word}", hint="a word, a blank and its sounds in each line")
        if word in found:
            raise Failure(str(path), why=f"two pronunciations of {word}", hint="keep the one that is said")
        found[word] = " ".join(sounds)
    return found


def plan(root: Path, out: Path, suffix: str) -> Plan:
    """Pair the audio files below `root` with their transcripts. Results go to the same places below `out`, with `suffix`."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    audio = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    # a.wav and a.flac in one directory would both write a.json.
    stems = Counter(path.with_suffix("") for path in audio)
    jobs, without_text, used = [], [], set()
    for path in audio:
        text = text_beside(path)
        if text is None:
            without_text.append(path)
            continue
        stem = path.with_suffix("")
        used.add(stem)
        name = path.stem if stems[stem] == 1 else path.name
        jobs.append(CorpusJob(path, text, out / path.relative_to(root).with_name(name + suffix)))
    # `out` may be inside the tree: what an earlier run wrote there is not a transcript.
    results = out.resolve()
    texts = [path for path in files if path.suffix.lower() in TEXT_SUFFIXES and path.with_suffix("") not in used]
    return Plan(jobs, without_text, [path for path in texts if not path.resolve().is_relative_to(results)])
