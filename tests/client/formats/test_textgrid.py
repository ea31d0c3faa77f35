"""A TextGrid is read back by a parser that knows only Praat's rules."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_client.formats import Format, render
from aligner_svc.domain import Alignment, Word, WordStatus

Interval = tuple[float, float, str]


def parse(text: str) -> tuple[float, str, list[Interval]]:
    """Praat reads free-standing numbers, quoted strings (a quote doubled inside) and <flags>, and ignores anything between."""
    found = re.findall(r'"((?:[^"]|"")*)"|(?<![\w\[])(-?\d+(?:\.\d+)?)(?![\w\]])|(<exists>)', text)
    values = iter([string.replace('""', '"') if not number and not flag else number or flag for string, number, flag in found])
    assert (next(values), next(values)) == ("ooTextFile", "TextGrid")
    assert float(next(values)) == 0
    total = float(next(values))
    assert (next(values), next(values)) == ("<exists>", "1")
    assert next(values) == "IntervalTier"
    name = next(values)
    assert (float(next(values)), float(next(values))) == (0, total)
    intervals = [(float(next(values)), float(next(values)), next(values)) for _ in range(int(next(values)))]
    assert list(values) == []
    assert intervals[0][0] == 0
    assert intervals[-1][1] == total
    assert all(left[1] == right[0] for left, right in pairwise(intervals))
    assert all(start < end for start, end, _ in intervals)
    return total, name, intervals


def grid(seconds: float, *words: tuple[str, float, float], status: WordStatus = WordStatus.ALIGNED) -> list[Interval]:
    made = [Word(text, start, end, 1.0, status, 0, 1) for text, start, end in words]
    total, name, intervals = parse(render(Alignment(made, seconds, "e", "en", 1.0), Format.TEXTGRID))
    assert name == "words"
    assert total == pytest.approx(seconds, abs=0.001)
    return intervals


def test_silence_is_an_empty_interval() -> None:
    assert grid(2.0, ("a", 0.5, 1.0), ("b", 1.25, 1.5)) == [
        (0, 0.5, ""), (0.5, 1.0, "a"), (1.0, 1.25, ""), (1.25, 1.5, "b"), (1.5, 2.0, "")
    ]  # fmt: skip


def test_words_from_edge_to_edge() -> None:
    assert grid(1.0, ("a", 0.0, 0.4), ("b", 0.4, 1.0)) == [(0, 0.4, "a"), (0.4, 1.0, "b")]


def test_quotes_are_doubled() -> None:
    alignment = Alignment([Word('5" "x"', 0.0, 1.0, 1.0, WordStatus.ALIGNED, 0, 6)], 1.0, "e", "en", 1.0)
    text = render(alignment, Format.TEXTGRID)
    assert 'text = "5"" ""x"""' in text
    assert parse(text)[2] == [(0, 1.0, '5" "x"')]


def test_overlap_goes_to_the_earlier_word() -> None:
    assert grid(1.0, ("a", 0.0, 0.5), ("b", 0.3, 0.8)) == [(0, 0.5, "a"), (0.5, 0.8, "b"), (0.8, 1.0, "")]


def test_words_without_length_get_a_millisecond() -> None:
    assert grid(1.0, ("a", 0.5, 0.5), ("b", 0.5, 0.5)) == [(0, 0.5, ""), (0.5, 0.501, "a"), (0.501, 0.502, "b"), (0.502, 1.0, "")]
    assert grid(1.0, ("a", 1.0, 1.0), ("b", 1.0, 1.0))[-2:] == [(0.998, 0.999, "a"), (0.999, 1.0, "b")]


def test_a_word_past_the_end_is_cut() -> None:
    assert grid(1.0, ("a", 0.5, 1.5)) == [(0, 0.5, ""), (0.5, 1.0, "a")]


def test_not_found_is_left_out() -> None:
    assert grid(1.0, ("a", 0.5, 0.6), status=WordStatus.NOT_FOUND) == [(0, 1.0, "")]
    assert grid(1.0) == [(0, 1.0, "")]
    assert grid(0.0) == [(0, 0.001, "")]


_TIMES = st.floats(0, 3, allow_nan=False)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["a", '"', 'b"']), _TIMES, _TIMES), max_size=12), st.floats(0.05, 2))
def test_any_times_make_a_valid_tier_with_every_word(words: list[tuple[str, float, float]], seconds: float) -> None:
    intervals = grid(seconds, *words)
    assert sorted(text for _, _, text in intervals if text) == sorted(text for text, _, _ in words)
