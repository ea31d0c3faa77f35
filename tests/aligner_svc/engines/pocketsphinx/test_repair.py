"""Words that were not heard get a time where there is room for them, and only there."""

from __future__ import annotations

import pytest

from aligner_svc.engines.pocketsphinx.ladder import Placement
from aligner_svc.engines.pocketsphinx.repair import Times, repair


def at(start: float, end: float) -> Placement:
    return Placement(start, end, -1.0, None, ())


def whole(start: float, end: float) -> Times:
    return start, end


def test_a_gap_of_speech_is_divided_by_phones() -> None:
    found = repair([at(0, 1), None, None, at(1.3, 2)], [3, 2, 1, 3], whole)
    assert found == {1: pytest.approx((1.0, 1.2)), 2: pytest.approx((1.2, 1.3))}


def test_neighbours_that_touch_leave_no_room() -> None:
    assert repair([at(0, 1), None, at(1, 2)], [3, 2, 3], whole) == {}


def test_a_gap_too_short_for_the_word_is_not_used() -> None:
    assert repair([at(0, 1), None, at(1.1, 2)], [3, 9, 3], whole) == {}
    assert 1 in repair([at(0, 1), None, at(1.1, 2)], [3, 2, 3], whole)


def test_a_gap_too_long_for_the_words_is_not_used() -> None:
    assert repair([at(0, 1), None, at(3, 4)], [3, 3, 3], whole) == {}
    assert 1 in repair([at(0, 1), None, at(1.7, 4)], [3, 3, 3], whole)


def test_a_pause_is_not_used() -> None:
    assert repair([at(0, 1), None, at(2, 3)], [3, 2, 3], lambda start, _: (start, start)) == {}


def test_the_word_gets_the_loud_part_of_the_gap() -> None:
    assert repair([at(0, 1), None, at(2, 3)], [3, 2, 3], lambda *_: (1.4, 1.7)) == {1: (1.4, 1.7)}


def test_a_passage_left_out_is_not_repaired() -> None:
    placements = [at(0, 1), None, None, None, None, at(4, 5), at(5, 6), at(6, 7)]
    assert repair(placements, [2] * 8, whole) == {}


def test_words_before_the_first_and_after_the_last_heard_are_not_repaired() -> None:
    assert repair([None, at(1, 2), at(2, 3), None], [2] * 4, whole) == {}


def test_chance_hits_of_a_wrong_transcript_lead_to_no_repair() -> None:
    assert repair([at(0, 1), None, at(2, 3), *[None] * 10], [2] * 13, whole) == {}


def test_a_clip_from_the_middle_of_a_text_is_repaired_like_any_other() -> None:
    said = [at(0, 1), None, at(1.3, 2), at(2, 3), at(3, 4)]
    assert set(repair([*[None] * 30, *said, *[None] * 30], [2] * 65, whole)) == {31}


def test_no_word_heard_and_no_words() -> None:
    assert repair([None, None], [2, 2], whole) == {}
    assert repair([], [], whole) == {}
