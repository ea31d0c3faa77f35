"""A table of the words for a notebook."""

from __future__ import annotations

from html import escape

from aligner_client.alignment import PLACED, Alignment, Word

MOST_ROWS = 500
"""Of more words the middle is left out: thousands of rows make a notebook slow."""

_CHANNEL = "<th>channel</th>"
_HEADER = "<th>start</th><th>end</th><th style='text-align:left'>word</th><th>confidence</th><th>status</th>"


def render_html(alignment: Alignment) -> str:
    """A row for each word, its confidence on red (0) to green (1), times in seconds; above it the warnings. Text is escaped."""
    words = alignment.words
    apart = bool(alignment.channels)
    rows = [_row(word, apart=apart) for word in words]
    if len(words) > MOST_ROWS:
        half = MOST_ROWS // 2
        rows[half:-half] = [f"<tr><td colspan='{5 + apart}'>{len(words) - 2 * half} more words</td></tr>"]
    warnings = "".join(f"<p><b>{escape(one.code)}</b>{_of(one.channel)} {escape(one.message)}</p>" for one in alignment.warnings)
    header = f"<tr>{_CHANNEL if apart else ''}{_HEADER}</tr>"
    return f"<p>{escape(repr(alignment))}</p>{warnings}<table>{header}{''.join(rows)}</table>"


def _of(channel: int | None) -> str:
    return "" if channel is None else f" (channel {channel})"


def _row(word: Word, *, apart: bool) -> str:
    """`apart`: with its channel."""
    channel = f"<td>{word.channel}</td>" if apart else ""
    text = f"<td style='text-align:left'>{escape(word.text)}</td>"
    if word.status not in PLACED:
        return f"<tr style='opacity:.6'>{channel}<td></td><td></td>{text}<td></td><td>{word.status.value}</td></tr>"
    hue = round(120 * min(1.0, max(0.0, word.confidence)))
    confidence = f"<td style='background:hsl({hue},70%,80%);color:#000'>{word.confidence:.2f}</td>"
    return f"<tr>{channel}<td>{word.start:.3f}</td><td>{word.end:.3f}</td>{text}{confidence}<td>{word.status.value}</td></tr>"
