"""CTM, the word list of NIST's sclite: `<recording> <channel> <start> <duration> <word> <confidence>`."""

from __future__ import annotations

from aligner_client.alignment import PLACED, Alignment


def render_ctm(alignment: Alignment, recording: str = "audio") -> str:
    """One line for each word that was found, times in seconds; blanks in a field, which would shift the columns, become "_".

    Ordered by start, as sclite requires. Empty if no word was found.
    """
    name = _field(recording)
    found = sorted((word for word in alignment.words if word.status in PLACED), key=lambda word: word.start)
    return "".join(
        f"{name} 1 {word.start:.3f} {max(0.0, word.end - word.start):.3f} {_field(word.text)} {word.confidence:.3f}\n"
        for word in found
    )


def render_phone_ctm(alignment: Alignment, recording: str = "audio") -> str:
    """The same with a line for each phone, and its word's confidence; empty if they were not asked for."""
    name = _field(recording)
    rows = [(phone, word.confidence) for word in alignment.words for phone in word.phones]
    return "".join(
        f"{name} 1 {phone.start:.3f} {max(0.0, phone.end - phone.start):.3f} {_field(phone.symbol)} {confidence:.3f}\n"
        for phone, confidence in sorted(rows, key=lambda row: row[0].start)
    )


def _field(text: str) -> str:
    return "_".join(text.split()) or "_"
