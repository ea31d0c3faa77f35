"""A web page in one file: the waveform, the words under it coloured by confidence, played with a click; what is to be checked."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib import resources

from aligner_client.alignment import Alignment, Word, WordStatus

_BLOCK = 80
"""Words of a paragraph at most: the browser lays out those that are in view."""
_PAUSE = 1.0
"""Seconds between two turns of a channel."""
_LISTED = 500
"""Words and stretches to check that are listed; the keys n and N lead to all."""
_BOUNDS = (0.4, 0.6, 0.8)
"""Confidences between the colours."""
_KINDS = {WordStatus.REPAIRED: "r", WordStatus.NOT_FOUND: "n", WordStatus.SKIPPED: "s"}
_SAYS = {WordStatus.REPAIRED: "time inferred", WordStatus.NOT_FOUND: "not found", WordStatus.SKIPPED: "not looked for"}


@dataclass(frozen=True, slots=True)
class Sound:
    """What can be heard and seen of a recording. `peaks`: the loudest of equal stretches of it, a byte each."""

    peaks: bytes = b""
    source: str = ""
    """A data: URL, or the place of the file from where the page is; empty: nothing is played."""


def render_page(alignment: Alignment, transcript: str | None = None, title: str = "audio", sound: Sound | None = None) -> str:
    """The page, which loads nothing but the source of the sound. All text is escaped; no script is in it but its own.

    With `transcript`, what is between the words is shown too.
    """
    sound = sound or Sound()
    words = alignment.words
    nonce = b64encode(sha256(repr((title, alignment.engine, len(words), transcript)).encode()).digest()[:12]).decode()
    data = {
        "seconds": alignment.audio_seconds,
        "starts": [round(word.start, 3) for word in words],
        "ends": [round(word.end, 3) for word in words],
        "unaligned": [[round(at.start, 3), round(at.end, 3)] for at in alignment.unaligned],
        "peaks": b64encode(sound.peaks).decode(),
        "nonce": nonce,
    }
    library, script, style = _asset("wavesurfer.min.js"), _asset("page.js"), _asset("page.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(library)}' '{_hash(script)}'",
            f"style-src 'nonce-{nonce}'",
            "media-src 'self' data: blob: file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    missing = sum(word.status is WordStatus.NOT_FOUND for word in words)
    facts = (
        f"{len(words)} words, {missing} not found, in {alignment.audio_seconds:.2f} s; match {alignment.match_score:.2f}; "
        f"{alignment.language}, {alignment.engine}"
    )
    warnings = "".join(f"<p><strong>{escape(one.code)}</strong> {escape(one.message)}</p>" for one in alignment.warnings)
    return f"""<!doctype html>
<html lang="{escape(alignment.language)}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style nonce="{nonce}">{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="facts">{escape(facts)}</p>
{warnings}
</header>
<main>
<section id="player" aria-label="Player">
{'<div id="wave"></div><div id="track" aria-hidden="true"></div>' if sound.peaks else '<div id="track" hidden></div>'}
<audio id="audio" preload="metadata"{f' src="{escape(sound.source)}"' if sound.source else ""}></audio>
<div class="controls">
<button type="button" id="play">Play</button>
<output id="clock" for="audio">0:00.00</output>
{'<button type="button" id="in">Zoom in</button><button type="button" id="out">Zoom out</button>' if sound.peaks else ""}
<span id="said" class="hidden" role="status"></span>
<details id="help"><summary>Keys and colours</summary>
<p>Space plays and pauses; left and right go from word to word, Home and End to the ends; n and N to the next and the last word to
check; + and - zoom. A click on a word plays it.</p>
<p>{_legend()}</p></details>
</div>
</section>
<section id="text" aria-label="Transcript">
{"".join(_turns(alignment) if alignment.channels else _blocks(words, transcript))}
</section>
{_to_check(alignment)}
</main>
<script type="application/json" id="data">{_inert(data)}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def _legend() -> str:
    low, middle, high = _BOUNDS
    shown = (
        ("c3", f"confidence from {high:.1f}"),
        ("c2", f"from {middle:.1f}"),
        ("c1", f"from {low:.1f}"),
        ("c0", "below"),
        ("r", "time inferred"),
        ("n", "not found"),
        ("s", "not looked for"),
    )
    return " ".join(f'<span class="key {name}">{text}</span>' for name, text in shown)


def _blocks(words: Sequence[Word], transcript: str | None) -> Iterator[str]:
    """Paragraphs of words, which end at line breaks of the transcript."""
    at = 0
    block: list[str] = []
    begin = 0.0
    for number, word in enumerate(words):
        before, broken, between = (transcript[at : word.char_start] if transcript is not None else " ").rpartition("\n")
        if block and (broken or len(block) >= _BLOCK):
            yield _block([*block, escape(before)], begin)
            block = []
        if not block:
            begin = word.start
        block.append(escape(between) + _word(word, number))
        at = max(at, word.char_end)
    if block:
        yield _block([*block, escape(transcript[at:] if transcript is not None else "")], begin)


def _turns(alignment: Alignment) -> Iterator[str]:
    """Paragraphs of words of a channel, which end at its pauses, in the order of their times."""
    texts = {one.number: one.transcript or "" for one in alignment.channels}
    turns: list[tuple[float, int, list[str]]] = []
    last: dict[int, tuple[Word, list[str]]] = {}
    """By channel: the last word, and the turn that it is in."""
    for number, word in enumerate(alignment.words):
        channel = word.channel or 0
        before, turn = last.get(channel, (None, []))
        text = texts[channel]
        between = text[before.char_end if before else 0 : word.char_start] if text else " " * bool(before)
        if before is None or word.start - before.end > _PAUSE or len(turn) >= 2 * _BLOCK:
            tail, _, lead = between.partition(" ") if before else ("", "", between)
            turn.append(escape(tail))
            turn = [f"<b>Channel {channel}</b> {escape(lead)}"]
            turns.append((word.start, channel, turn))
        else:
            turn.append(escape(between))
        turn.append(_word(word, number))
        last[channel] = word, turn
    for channel, (word, turn) in last.items():
        turn.append(escape(texts[channel][word.char_end :]))
    for begin, _, turn in sorted(turns, key=lambda one: one[:2]):
        yield _block(turn, begin)


def _block(parts: Sequence[str], begin: float) -> str:
    return f'<div class="block"><time>{_time(begin)}</time><p>{"".join(parts).strip()}</p></div>\n'


def _word(word: Word, number: int) -> str:
    kind = _KINDS.get(word.status)
    colour = f"c{sum(word.confidence >= bound for bound in _BOUNDS)}"
    name = kind if kind in {"n", "s"} else f"{colour} {kind}" if kind else colour
    label = f' aria-label="{escape(f"{word.text}, {_SAYS[word.status]}")}"' if kind else ""
    title = f"{word.start:.3f} to {word.end:.3f} s, confidence {word.confidence:.2f}"
    return (
        f'<button type="button" tabindex="-1" class="w {name}" id="w{number}" title="{title}"{label}>{escape(word.text)}</button>'
    )


def _to_check(alignment: Alignment) -> str:
    """A list of words that were not heard, and of loud stretches that no word covers."""
    found = [
        (word.start, f"{_time(word.start)} {word.text}: {_SAYS[word.status]}")
        for word in alignment.words
        if word.status in {WordStatus.REPAIRED, WordStatus.NOT_FOUND}
    ]
    found += [(at.start, f"{_time(at.start)} to {_time(at.end)}: loud, but without words") for at in alignment.unaligned]
    if not found:
        return ""
    rows = "".join(
        f'<li><button type="button" data-at="{start:.3f}">{escape(text)}</button></li>' for start, text in sorted(found)[:_LISTED]
    )
    more = f"<p>and {len(found) - _LISTED} more</p>" if len(found) > _LISTED else ""
    return f'<section id="check"><h2>To check ({len(found)})</h2><ul>{rows}</ul>{more}</section>'


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def _inert(data: object) -> str:
    """JSON that no HTML parser takes for a tag or the end of the script."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Of a script as the policy names it."""
    return "sha256-" + b64encode(sha256(script.encode()).digest()).decode()
