"""The page of an alignment in a real browser: clicks and keys, colours, accessibility, and a transcript that is hostile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aligner_client import Alignment, Warning, Word, WordStatus
from aligner_client.alignment import Stretch
from aligner_client.formats.page import Sound, render_page
from aligner_svc.cli.alignment.sound import sound
from tests.kit.npm import install
from tests.kit.recordings import SAMPLE, TRANSCRIPT

HERE = Path(__file__).parent
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def alignment() -> Alignment:
    """Of the sample's text: word 5 was not found, word 7 inferred, the end is loud without words."""
    words, at = [], 0
    for number, text in enumerate(TRANSCRIPT.replace(",", "").replace(".", "").split()):
        at = TRANSCRIPT.index(text, at)
        status = {5: WordStatus.NOT_FOUND, 7: WordStatus.REPAIRED}.get(number, WordStatus.ALIGNED)
        start = 0.3 + 0.25 * number
        end = start if number == 5 else start + 0.22
        words.append(Word(text, start, end, (0.3, 0.5, 0.7, 0.9)[number % 4], status, at, at + len(text)))
        at += len(text)
    return Alignment(words, 4.905, "test-1", "en", 0.9, [Warning("HOSTILE", HOSTILE)], unaligned=[Stretch(4.6, 4.9)])


def opened(page: str, tmp_path: Path, *arguments: str) -> Mapping[str, Any]:
    """What tests/browser/page.mjs saw."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    install(HERE)
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    command = ["node", str(HERE / "page.mjs"), str(file), *arguments]
    environment = {**os.environ, "CHROMIUM": chromium, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def test_words_are_played_found_zoomed_and_checked_by_mouse_and_keys(tmp_path: Path) -> None:
    seen = opened(render_page(alignment(), TRANSCRIPT, HOSTILE, sound(SAMPLE, None)), tmp_path)
    assert seen["errors"] == seen["refused"] == []
    assert len(seen["requests"]) == 1, "it loads nothing but itself"
    assert 0.8 <= seen["clicked"] < 2, "a click plays from word 2"
    assert (seen["home"], seen["right"], seen["next"], seen["checked"]) == ("w0", "w1", "w5", "w5")
    assert seen["said"].startswith("against, 0:01.55"), "a screen reader is told"
    assert seen["litUp"] == "w3", "playing lights up each word"
    assert seen["zoomed"]
    assert seen["shownInTrack"] >= 15
    assert seen["loudInTrack"] == 1
    assert (seen["light"], seen["dark"], seen["printed"]) == ("rgb(255, 255, 255)", "rgb(19, 19, 22)", "none")
    assert seen["axe light"] == seen["axe dark"] == []


def test_a_transcript_of_script_tags_is_text(tmp_path: Path) -> None:
    texts = [HOSTILE, "\u2028", "{{x}}", "&lt;b&gt;", "'\"`"]
    transcript = " ".join(texts)
    words, at = [], 0
    for number, text in enumerate(texts):
        at = transcript.index(text, at)
        words.append(Word(text, number * 0.5, number * 0.5 + 0.4, 0.9, WordStatus.ALIGNED, at, at + len(text)))
    many = words * 12
    page = render_page(Alignment(many, 4.905, HOSTILE, HOSTILE, 0.9), transcript, HOSTILE, Sound(bytes(50), "none.wav"))
    assert page.count("<script") == 3
    assert "alert(2)</script>" not in page
    assert "<img" not in page
