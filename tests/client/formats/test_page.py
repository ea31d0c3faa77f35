"""The page of an alignment as a file: what is in it, whatever the browser."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from aligner_client import Alignment, Word, WordStatus
from aligner_client.formats import Format, render
from aligner_client.formats.page import Sound, render_page

TEXT = "Good — evening,\neveryone. [Applause]"
WORDS = [
    Word("Good", 0.1, 0.4, 0.95, WordStatus.ALIGNED, 0, 4),
    Word("evening", 0.5, 0.9, 0.5, WordStatus.REPAIRED, 7, 14),
    Word("everyone", 0.9, 0.9, 0.0, WordStatus.NOT_FOUND, 16, 24),
    Word("[Applause]", 0.9, 0.9, 0.0, WordStatus.SKIPPED, 26, 36),
]
ALIGNMENT = Alignment(WORDS, 2.0, "test-1", "en", 0.9)


def test_the_text_is_whole_and_its_lines_are_paragraphs() -> None:
    page = render(ALIGNMENT, Format.HTML, transcript=TEXT)
    shown = [re.sub("<[^>]+>", "", paragraph) for paragraph in re.findall("</time><p>(.*?)</p></div>", page, re.DOTALL)]
    assert shown == ["Good — evening,", "everyone. [Applause]"]


def test_words_that_are_to_be_checked_are_listed_and_named() -> None:
    page = render_page(ALIGNMENT, TEXT)
    assert re.findall(r'<button type="button" data-at="[\d.]+">([^<]+)<', page) == [
        "0:00.50 evening: time inferred",
        "0:00.90 everyone: not found",
    ]
    assert 'aria-label="everyone, not found"' in page


def test_only_its_own_scripts_run_and_nothing_is_loaded() -> None:
    page = render_page(ALIGNMENT, TEXT, sound=Sound(bytes(100), "talk.wav"))
    policy = re.search('Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for script in re.findall("<script>(.*?)</script>", page, re.DOTALL):
        assert b64encode(sha256(script.encode()).digest()).decode() in policy
    assert re.findall(r'(?:src|href)="([^"]+)"', re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)) == ["talk.wav"]


def test_the_same_alignment_gives_the_same_page() -> None:
    assert render_page(ALIGNMENT, TEXT) == render_page(ALIGNMENT, TEXT)
