"""An alignment as a table for people."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aligner_svc.cli.tables import plain_table, print_fitted, printable
from aligner_svc.domain import Alignment, Word, WordStatus

_BAR = 8
_STRETCHES = 10
_STATUS_COLOUR = {
    WordStatus.ALIGNED: "green",
    WordStatus.REPAIRED: "yellow",
    WordStatus.NOT_FOUND: "red",
    WordStatus.SKIPPED: "dim",
}


def print_alignment(alignment: Alignment, out: Path | None) -> None:
    """Print to stdout, or without colour to a file. Raises OSError."""
    if out is None:
        _print(Console(highlight=False), alignment)
        return
    with out.open("w", encoding="utf-8") as file:
        _print(Console(file=file, highlight=False, width=120), alignment)


def _print(console: Console, alignment: Alignment) -> None:
    right = ("start", "end", "duration")
    channel = ("channel",) if alignment.channels else ()
    table = plain_table(*channel, "word", *right, "confidence", "status", fold={"word"}, right=right)
    for word in alignment.words:
        table.add_row(
            *(str(word.channel) for _ in channel),
            printable(word.text),
            f"{word.start:.3f}",
            f"{word.end:.3f}",
            f"{word.end - word.start:.3f}",
            _confidence(word),
            Text(word.status.value.lower().replace("_", " "), style=_STATUS_COLOUR[word.status]),
        )
    print_fitted(console, table, drop={"duration", "confidence"})
    summary = (
        f"{alignment.audio_seconds:.2f} s of audio, {len(alignment.words)} words, {alignment.engine} ({alignment.language}), "
        f"match {alignment.match_score:.2f}"
    )
    if alignment.audio_start:
        summary += f", begins {alignment.audio_start:.3f} s into the file"
    if alignment.channels:
        summary += ": " + ", ".join(f"channel {one.number} {one.match_score:.2f}" for one in alignment.channels)
    console.print()
    console.print(printable(summary), style="bold", soft_wrap=True)
    if alignment.unaligned:
        stretches = ", ".join(f"{at.start:.2f} to {at.end:.2f}{_of(at.channel)}" for at in alignment.unaligned[:_STRETCHES])
        more = ", ..." if len(alignment.unaligned) > _STRETCHES else ""
        console.print(f"loud, but without words (s): {stretches}{more}", soft_wrap=True)
    for warning in alignment.warnings:
        console.print(
            printable(f"warning{_of(warning.channel)}: {warning.message} ({warning.code})"), style="yellow", soft_wrap=True
        )


def _of(channel: int | None) -> str:
    return "" if channel is None else f" (channel {channel})"


def _confidence(word: Word) -> Text:
    confidence = word.confidence if math.isfinite(word.confidence) else 0.0
    filled = round(min(1.0, max(0.0, confidence)) * _BAR)
    colour = "green" if confidence >= 0.8 else "yellow" if confidence >= 0.5 else "red"
    bar = Text("█" * filled, style=colour)
    bar.append("░" * (_BAR - filled), style="dim")
    return bar.append(f" {confidence:.2f}")
