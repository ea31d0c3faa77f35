"""Audio and text that are aligned while they arrive: what windows are cut from, and the speaker's pauses.

What is final does not depend on how the audio was cut into pieces: the places at which a growing window is aligned are chosen by
the audio alone. Only whether it comes as it is spoken depends on the time of its arrival.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, Token
from aligner_svc.engines.loudness import FRAME, FRAME_RATE, is_still, levels, limits
from aligner_svc.engines.sources import first_of

_FIRST, _NEXT = 1.5, 0.5
"""Seconds of audio in a growing window before it is aligned, and between two times that it is."""
_AT_MOST, _AGAIN = 2.0, 1.0
"""Seconds after which a growing window is aligned where the speaker does not pause, and after which it is once more."""
_QUIET: Final = 0.2
"""Seconds without a loud frame that are a pause of the speaker."""
_STEP: Final = 0.1
"""Seconds between two places that are looked at."""
_REMEASURED: Final = 1.0
"""Seconds of audio after which the level of speech in a growing window is measured again."""
_GROWTH: Final = 1.25
"""By which a window has to grow to be aligned again: what is not explained would cost as much as the whole many times."""
_MOST_SPOKEN, _PAUSE, _LONGEST = 10.0, 1.0, 20.0
"""Seconds of a window that is aligned before it is whole, at most: of speech with so much of each pause, and of all."""
_LATELY: Final = 30.0
"""Seconds of audio whose levels tell whether anybody speaks at its end."""
_SPEECH_RANGE_DB: Final = 15.0
"""Between background and speech if anybody spoke in these seconds: else the level of speech before them counts."""
_LEAD: Final = 1.0
"""Seconds of a pause that stay before what is aligned next: a word may begin softly."""
_SOFT: Final = 0.25
"""Of the way from the background to speech (dB): what is below is no speech, not even that of somebody further away."""
_PACE, _PACE_SECONDS = 0.4, 10.0
"""Audio comes as it is spoken if the last seconds of it took at least this share of their length to arrive."""
_UNHINDERED: Final = 30.0
"""Seconds of audio after the last that was held back: the pace of those is the server's, not the speaker's."""

Samples = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]


class _Changed:
    """Wakes all that wait for a change."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)


class LiveAudio:
    """WindowAudio that grows. Memory: what is not released, 4 bytes a sample, and 4 bytes for each 5 ms of the whole."""

    def __init__(self) -> None:
        self.length = 0
        """Samples so far."""
        self.ended = False
        self.released = 0
        """Samples that are not needed any more."""
        self.text_is_short = False
        """Whether the aligner waits for text: what is kept meanwhile says nothing about the aligner's pace."""
        self._wanted = 0.0
        self._closed = False
        self._pieces: deque[tuple[int, Floats, float]] = deque()  # first sample, samples, gain
        self._arrivals: deque[tuple[float, int]] = deque()  # the event loop's time, samples by then
        self._levels: npt.NDArray[np.float32] = np.zeros(60 * FRAME_RATE, np.float32)  # doubled when it is full
        self._frames = 0
        self._odd = np.zeros(0, np.float32)
        self._speech = 0.0
        self._held_at = -_UNHINDERED
        self._changed = _Changed()

    def append(self, samples: Floats, gain: float = 1.0) -> None:
        """`samples`: 1.0 is full scale. `gain`: brings a window that ends with them to its level."""
        now = asyncio.get_running_loop().time()
        if not self._closed:
            self._pieces.append((self.length, samples, gain))
        self.length += len(samples)
        self._arrivals.append((now, self.length))
        while len(self._arrivals) > 2 and self._arrivals[1][1] < self.released - _PACE_SECONDS * SAMPLE_RATE:
            self._arrivals.popleft()
        whole = np.concatenate([self._odd, samples * np.float32(gain * 32768)])
        frames = len(whole) // FRAME * FRAME
        self._odd = whole[frames:]
        self._add_levels(levels(np.clip(whole[:frames], -32768, 32767)))
        self._changed.notify()

    def end(self) -> None:
        """There is no more."""
        self.ended = True
        self._changed.notify()

    @property
    def levels(self) -> npt.NDArray[np.float32]:
        """Of all frames so far."""
        return self._levels[: self._frames]

    @property
    def live(self) -> bool:
        """Whether the latest audio came as it is spoken; not without any."""
        return self.length > 0 and self._is_live(self.length)

    @property
    def kept(self) -> float:
        """Seconds that are not released."""
        return (self.length - self.released) / SAMPLE_RATE

    def close(self) -> None:
        """No samples are asked for any more; nobody waits for room."""
        self._closed = True
        self.release(self.length)

    def want(self, seconds: float) -> None:
        """The aligner needs so much at a time."""
        self._wanted = seconds
        self._changed.notify()

    async def room(self, seconds: float) -> None:
        """Wait until less than so much is kept, or than is wanted, unless it is text that the aligner waits for."""

        def has_room() -> bool:
            return self.kept < max(seconds, self._wanted) or self.text_is_short or self._closed

        if not has_room():
            self._held_at = self.length / SAMPLE_RATE
        await self._changed.until(has_room)

    async def reach(self, count: int) -> int:
        """See WindowAudio."""
        await self._changed.until(lambda: self.length >= count or self.ended)
        return self.length

    async def pause(self, begin: int, after: int) -> int | None:
        """See WindowAudio."""
        first, tried = begin // FRAME, after // FRAME
        again = tried > first
        at = tried + int(_NEXT * FRAME_RATE) if again else first + int(_FIRST * FRAME_RATE)
        wait = _AGAIN if again else _AT_MOST
        threshold, measured, still, before = 0.0, 0, True, 0
        while at - first <= _LONGEST * FRAME_RATE:
            if await self.reach(at * FRAME) < at * FRAME or not self._is_live(at * FRAME):
                return None
            if not measured or at - measured >= _REMEASURED * FRAME_RATE:
                background, speech = limits(self._levels[first:at])
                threshold, measured, still = (background + speech) / 2, at, is_still(background, speech)
                before = _spoken(self._levels[first:tried] > threshold)
            heard = self._levels[first:at] > threshold
            spoken = _spoken(heard)
            if spoken > _MOST_SPOKEN * FRAME_RATE:
                return None
            quiet = not heard[-int(_QUIET * FRAME_RATE) :].any()
            begun = max(tried, first + int(heard.argmax()))
            if not still and spoken >= before * _GROWTH and (quiet or at - begun >= wait * FRAME_RATE):
                return at * FRAME
            at += int(_STEP * FRAME_RATE)
        return None

    async def silence(self, begin: int, click: float = 0.0) -> int:
        """See WindowAudio."""
        first, until = begin // FRAME, begin // FRAME + int(_FIRST * FRAME_RATE)
        if await self.reach(until * FRAME) < until * FRAME or not self._is_live(until * FRAME):
            return 0
        background, speech = limits(self._levels[max(0, until - int(_LATELY * FRAME_RATE)) : until])
        steps = self._levels[first:until].reshape(-1, int(_STEP * FRAME_RATE)).mean(axis=1)
        still = is_still(background, speech)
        if speech - background >= _SPEECH_RANGE_DB:
            self._speech = speech
        speech = max(speech, self._speech)
        loud = np.count_nonzero(steps > background + _SOFT * (speech - background)) * _STEP
        if still or loud <= click:
            return int((_FIRST - _LEAD) * SAMPLE_RATE)
        return 0

    def heard(self, begin: int, end: int) -> float:
        """See WindowAudio."""
        of_window = self.levels[begin // FRAME : end // FRAME]
        background, speech = limits(of_window)
        if is_still(background, speech):
            return 0.0
        return np.count_nonzero(of_window > (background + speech) / 2) / FRAME_RATE

    def cut(self, begin: int, end: int) -> Samples:
        """See WindowAudio."""
        parts = []
        gain = 1.0
        for first, samples, of_piece in self._pieces:
            if first < end and first + len(samples) > begin:
                parts.append(samples[max(0, begin - first) : end - first])
                gain = of_piece
        scaled = np.rint(np.concatenate(parts) * np.float32(gain * 32768)) if parts else np.zeros(0)
        return np.clip(scaled, -32768, 32767).astype(np.int16)

    def release(self, before: int) -> None:
        """See WindowAudio."""
        self.released = max(self.released, min(before, self.length))
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= before:
            self._pieces.popleft()
        self._changed.notify()

    def _add_levels(self, more: Floats) -> None:
        until = self._frames + len(more)
        if until > len(self._levels):
            self._levels = np.concatenate([self._levels[: self._frames], np.zeros(max(until, self._frames), np.float32)])
        self._levels[self._frames : until] = more
        self._frames = until

    def _is_live(self, sample: int) -> bool:
        """Whether the audio up to `sample` came as it is spoken."""
        if sample / SAMPLE_RATE - self._held_at < _UNHINDERED:
            return False
        span = min(sample / SAMPLE_RATE, _PACE_SECONDS)
        took = self._arrived(sample) - self._arrived(sample - round(span * SAMPLE_RATE))
        return took >= _PACE * span

    def _arrived(self, sample: int) -> float:
        """When there were so many samples, by the event loop's time."""
        return next((time for time, length in self._arrivals if length >= sample), self._arrivals[-1][0])


def _spoken(heard: npt.NDArray[np.bool_]) -> int:
    """Frames, but of each stretch in which nothing is heard the first _PAUSE alone."""
    places = np.arange(len(heard))
    return int(np.count_nonzero(places - np.maximum.accumulate(np.where(heard, places, -1)) <= _PAUSE * FRAME_RATE))


class LiveText:
    """WindowText that grows: tokens with something spoken. `more` is awaited for them when they are asked for."""

    def __init__(self, audio: LiveAudio, more: Callable[[], Awaitable[Sequence[Token]]]) -> None:
        """`more`: the next tokens of the text that has come, none if there is none."""
        self.ended = False
        self._audio = audio
        self._more = more
        self._tokens: list[Token] = []
        self._arrived = 0
        self._changed = _Changed()

    def notify(self, *, ended: bool = False) -> None:
        """Text has come, or there is no more."""
        self._audio.text_is_short = False  # until the aligner finds that it still is
        self._arrived += 1
        self.ended = self.ended or ended
        self._changed.notify()

    async def reach(self, room: int) -> bool:
        """See WindowText."""
        while True:
            seen, ended = self._arrived, self.ended
            self._tokens.extend(await self._more())
            if ended or sum(len(token.spoken) for token in self._tokens[:room]) >= room:
                return bool(self._tokens)
            self._audio.text_is_short = True
            self._audio.release(0)  # wakes who waits for room
            try:
                await self._changed.until(lambda seen=seen: self._arrived > seen)  # type: ignore[misc]
            finally:
                self._audio.text_is_short = False

    def offer(self, room: int) -> tuple[Sequence[Token], bool]:
        """See WindowText."""
        offered = first_of(self._tokens, 0, room)
        return offered, len(offered) == len(self._tokens)

    def take(self, count: int) -> None:
        """See WindowText."""
        del self._tokens[:count]
