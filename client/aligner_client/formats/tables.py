"""Tables of words: CSV, and the labels that Audacity imports."""

from __future__ import annotations

import csv
import io

from aligner_client.alignment import PLACED, Alignment, Word


def render_csv(alignment: Alignment) -> str:
    """RFC 4180 with a header, but for line ends: a row for each word of the transcript, whatever its status; times in seconds.

    With a transcript for each channel there is a column for it, the last.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ("word", "start", "end", "status", "confidence", "char_start", "char_end")
    writer.writerow((*columns, "channel") if alignment.channels else columns)
    for word in alignment.words:
        times = (f"{word.start:.3f}", f"{word.end:.3f}")
        row = (word.text, *times, word.status.value, f"{word.confidence:.3f}", word.char_start, word.char_end)
        writer.writerow((*row, word.channel) if alignment.channels else row)
    return file.getvalue()


def render_audacity(alignment: Alignment) -> str:
    """One label, `<start> TAB <end> TAB <word>`, for each word that has a time; times in seconds.

    A file is one label track: with a transcript for each channel a label begins with it, "0: word".
    """
    return "".join(
        f"{word.start:.6f}\t{word.end:.6f}\t{_channel(word)}{' '.join(word.text.split())}\n"
        for word in alignment.words
        if word.status in PLACED
    )


def _channel(word: Word) -> str:
    return "" if word.channel is None else f"{word.channel}: "
