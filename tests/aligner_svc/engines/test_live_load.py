"""How many recordings are followed at a time: as many as the processes can keep pace with."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from aligner_svc.engines.live_load import LiveLoad
from aligner_svc.errors import LimitExceededError


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_those_that_speak_without_a_pause_leave_no_room_for_more_and_those_that_pause_do():
    clock = Clock()
    load = LiveLoad(2, clock)
    with ExitStack() as streams:
        speakers = [streams.enter_context(load.stream()) for _ in range(20)]
        for _ in range(60):
            clock.time += 2.0
            for speaker in speakers:
                speaker.worked(0.2)  # a tenth of a process each
        with pytest.raises(LimitExceededError) as refused, load.stream():
            pass
        assert refused.value.reason == "ENGINE_QUEUE_FULL"
        clock.time += 60.0  # nobody says anything
        streams.enter_context(load.stream())


def test_64_that_mostly_listen_fit_into_two_processes():
    clock = Clock()
    load = LiveLoad(2, clock)
    with ExitStack() as streams:
        followed = []
        for _ in range(64):
            followed.append(streams.enter_context(load.stream()))
            for _ in range(5):
                clock.time += 2.0
                for one in followed:
                    one.worked(0.02)


def test_one_is_always_followed():
    with LiveLoad(0).stream():
        pass
