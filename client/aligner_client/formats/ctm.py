"""CTM, the word list of NIST's sclite: `<recording> <channel> <start> <duration> <word> <confidence>`."""

from __future__ import annotations

from aligner_client.alignment import PLACED, Alignment, Word


def render_ctm(alignment: Alignment, recording: str = "audio") -> str:
    """One line for each word that was found, times in seconds; blanks in a field, which would shift the columns, become "_".

    Ordered by channel, which counts from 1 here, and start, as sclite requires. Empty if no word was found.
    """
    name = _field(recording)
    found = sorted((word for word in alignment.words if word.status in PLACED), key=lambda word: (_channel(word), word.start))
    return "".join(
        f"{name} {_channel(one)} {one.start:.3f} {max(0.0, one.end - one.start):.3f} {_field(one.text)} {one.confidence:.3f}\n"
        for one in found
    )


def render_phone_ctm(alignment: Alignment, recording: str = "audio") -> str:
    """The same with a line for each phone, and its word's confidence; empty if they were not asked for."""
    name = _field(recording)
    rows = [(_channel(word), phone, word.confidence) for word in alignment.words for phone in word.phones]
    return "".join(
        f"{name} {channel} {phone.start:.3f} {max(0.0, phone.end - phone.start):.3f} {_field(phone.symbol)} {confidence:.3f}\n"
        for channel, phone, confidence in sorted(rows, key=lambda row: (row[0], row[1].start))
    )


def _channel(word: Word) -> int:
    return 1 if word.channel is None else word.channel + 1


def _field(text: str) -> str:
    return "_".join(text.split()) or "_"
