"""What a result says by itself: files of it, its repr, and its table in a notebook."""

from __future__ import annotations

import json

import pytest

import aligner_client
from aligner_client import Aligner, Alignment, Warning, Word, WordStatus
from aligner_client.formats import Format
from aligner_client.formats.html import MOST_ROWS
from tests.kit.scripted_aligner import scripted_server

WORDS = (
    Word("<b>Hi</b>", 0.0, 0.5, 0.95, WordStatus.ALIGNED, 0, 9),
    Word("there", 0.5, 0.5, 0.0, WordStatus.NOT_FOUND, 10, 15),
)
WARNINGS = (Warning("AUDIO_SILENT", "a <script>"),)
ALIGNMENT = Alignment(WORDS, 1.25, "<engine>", "en", 0.5, WARNINGS, transcript="<b>Hi</b>, there.")


def test_an_answer_renders_itself_with_the_transcript_that_was_sent():
    with scripted_server() as server, Aligner(server.target) as aligner:
        found = aligner.align(b"x", "Well, one.")
        streamed = aligner.stream_align(b"x", "Well, one.")
    assert found.to_srt() == "1\n00:00:00,000 --> 00:00:00,900\nWell, one.\n"
    assert streamed.to_vtt() == "WEBVTT\n\n00:00:00.000 --> 00:00:00.900\nWell, one.\n"
    assert "<00:00:00.500>one." in found.to_vtt(word_times=True)
    assert [word["text"] for word in json.loads(found.to_json())["words"]] == ["Well,", "one."]
    assert found.to_textgrid().startswith('File type = "ooTextFile"')


def test_every_format_is_rendered_by_its_name():
    assert all(ALIGNMENT.render(format.value) == ALIGNMENT.render(format) for format in Format)
    with pytest.raises(ValueError, match="docx"):
        ALIGNMENT.render("docx")


def test_the_repr_is_one_short_line():
    assert repr(ALIGNMENT) == "<Alignment of 2 words, 1 not found, in 1.25 s; match 0.50, en, <engine>>"


def test_a_notebook_shows_a_table_in_which_all_text_is_escaped():
    html = ALIGNMENT._repr_html_()
    assert "&lt;b&gt;Hi&lt;/b&gt;" in html
    assert "a &lt;script&gt;" in html
    assert not {"<b>Hi", "<script", "<engine"} & {tag for tag in ("<b>Hi", "<script", "<engine") if tag in html}
    assert "hsl(114,70%,80%)" in html  # 0.95 on the way from red to green
    assert html.count("<tr") == 3


def test_a_long_table_is_cut_in_the_middle():
    html = Alignment(WORDS[:1] * (MOST_ROWS + 7), 1.0, "e", "en", 1.0)._repr_html_()
    assert html.count("<tr") == MOST_ROWS + 2
    assert "7 more words" in html


def test_every_public_name_is_there_and_nothing_is_listed_twice():
    assert all(getattr(aligner_client, name) for name in aligner_client.__all__)
    assert sorted(aligner_client._HOMES) == sorted(aligner_client.__all__) == sorted(set(aligner_client.__all__))
    with pytest.raises(AttributeError, match="no attribute 'Alinger'"):
        _ = aligner_client.Alinger  # type: ignore[attr-defined]
