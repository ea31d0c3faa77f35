"""The pipeline's side of the decoder: bytes in, a clip or a reason out; decoding runs in child processes."""

# long: the calls to the children, what they refuse and the messages for it belong together
from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from aligner_svc.audio.arriving.spool import SpoolRoom
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.sniff import ACCEPTED, check_headerless, sniff
from aligner_svc.audio.undecodable import MAX_CHANNELS, MAX_RATE, MIN_RATE, SHORTER, UNFINISHED
from aligner_svc.config.limits import MIB, DecodeSettings, Limits
from aligner_svc.domain import SAMPLE_RATE, Clip
from aligner_svc.domain import Warning as AudioWarning
from aligner_svc.errors import InvalidArgumentError, UnavailableError
from aligner_svc.workers import (
    Buffer,
    JsonValue,
    SandboxMode,
    WorkerDiedError,
    WorkerFailedError,
    WorkerKilledError,
    WorkerTimeoutError,
    WorkerUnavailableError,
    log_sandbox,
)
from aligner_svc.workers.pool import Reply, WorkerPool
from aligner_svc.workers.process import WorkerProcess

_SHORT_BYTES: Final = 8 * MIB
"""Bytes of the largest upload that is tried as a short one: four minutes of 16 kHz PCM, and any file that takes less than
_SHORT_CPU. Sending 8 MiB to a child in vain takes some 5 ms."""

_SHORT_CPU: Final = 0.1
"""Processor seconds after which a decode is no short one: some four minutes of MP3. It is then begun again as a long one."""

_WORTH_READING: Final = 60.0
"""Seconds asked for from which the packets are read before they are decoded: opening a file twice takes 2 ms, as long as decoding
some seconds of it."""

_WORKING_MEMORY: Final = 256 * MIB
"""Bytes of address space a child has beyond one input and one output; a decode may use less (see decode_worker.py)."""

# The message for each of the child's codes; any other code becomes AUDIO_UNREADABLE.
_MESSAGES: Final[dict[str, str]] = {
    "AUDIO_EMPTY": "the audio has no samples",
    "AUDIO_METADATA_TOO_LARGE": "the file has more than {value} characters of tags: send it without them",
    "AUDIO_NO_STREAM": "the file has no audio stream",
    "AUDIO_NOT_FINITE": "the audio has NaN or infinite samples",
    "AUDIO_TOO_LONG": "the audio is longer than the {limit:g} seconds that are accepted",
    "AUDIO_TOO_MANY_PACKETS": "the audio has far more packets than its duration needs",
    "AUDIO_TOO_MANY_STREAMS": "the file has {value} streams: send the audio alone",
    "AUDIO_TRACK_UNKNOWN": "the recording has {value} audio track(s): config.audio_track is beyond them",
    "AUDIO_UNREADABLE": "the audio could not be decoded: it is damaged, or not in the format that its first bytes indicate",
    "CHANNEL_UNKNOWN": "the audio has {value} channel(s), counted from 0: there is no such channel in it",
    "CHANNELS_OUT_OF_RANGE": f"the audio has {{value}} channels; 1 to {MAX_CHANNELS} are accepted",
    "CODEC_UNSUPPORTED": f"the audio is in a codec that is not supported: send {ACCEPTED}",
    "SAMPLE_RATE_OUT_OF_RANGE": f"the audio has a sample rate of {{value}} Hz; {MIN_RATE} to {MAX_RATE} are accepted",
}

_MAX_TRACKS: Final = 1000
"""Audio tracks that a child's answer is believed to have found."""

_MAX_START: Final = 0xFFFFFFFF / 1000
"""Seconds that fit into the API's field."""

_FIELDS: Final = {"AUDIO_TRACK_UNKNOWN": "config.audio_track", "CHANNEL_UNKNOWN": "config.channel_transcripts"}
"""The field of the request at fault, where it is not the audio."""

WARNINGS: Final = {
    "damaged": AudioWarning(
        "AUDIO_DAMAGED", "parts of the audio could not be decoded; words there may be wrong, and times after them off"
    ),
    "truncated": AudioWarning(
        "AUDIO_TRUNCATED", "the audio ends before its header says, or in the middle of a frame; the rest is missing"
    ),
    "extended": AudioWarning(
        "AUDIO_BEYOND_END", "the file goes on behind the end that its header declares; what is there was aligned as well"
    ),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """`container` is the demuxer or the encoding, in lower case; `queued` and `busy` in seconds, as in `Reply`.

    `start`: seconds from the beginning of the file's own clock to the first sample; above 0 in a film whose sound begins later.
    `peak`: the loudest of it before it was scaled, 1.0 is full scale.
    """

    clip: Clip
    warnings: tuple[AudioWarning, ...]
    container: str
    queued: float
    busy: float
    start: float = 0.0
    peak: float = 1.0


class AudioShorterError(Exception):
    """The audio lasts `seconds` at most, less than was asked for."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.1f} s")
        self.seconds = seconds


OnLong = Callable[[], Awaitable[None]]


async def _nothing() -> None: ...


class Decoder:
    """Decoder processes. Call `start` before and `close` after, on the event loop that decodes.

    Short recordings have processes of their own, so that none waits for a long one, which may take ten seconds. Those of long
    ones run at a low priority: they get all of an idle processor, and next to nothing of one that a short recording wants.
    Only a decode shows whether a recording is short: a file of a few kB may last for hours. In either pool clients take turns.
    """

    def __init__(self, settings: DecodeSettings, limits: Limits, sandbox: SandboxMode = "best-effort") -> None:
        self._timeout = settings.timeout
        self.max_seconds = limits.audio_seconds
        """Of the longest audio that is accepted."""
        output = math.ceil(limits.audio_seconds * SAMPLE_RATE) * 2
        # The input stays mapped while the output is, which is sent without a copy.
        memory = max(limits.stream_audio_bytes, limits.unary_audio_bytes) + output + _WORKING_MEMORY
        arguments = (str(memory), str(math.ceil(settings.timeout)), sandbox)
        self.container_arguments = (str(4 * _WORKING_MEMORY), sandbox)
        """Of the processes that decode one container each while it arrives."""
        self.containers = 0
        """How many there are; an upload beyond `most_containers` is decoded when it is complete."""
        self.most_containers = settings.containers
        self.spool = SpoolRoom(settings.spool_bytes)
        """For the files of uploads that are needed again."""
        self._ending: set[asyncio.Task[None]] = set()
        module = "aligner_svc.audio.decode_worker"
        self.pool = WorkerPool(module, settings.workers, args=arguments, name="decoder", max_reply=output)
        """Decodes short recordings."""
        self.long_pool = WorkerPool(
            module, settings.workers, args=(*arguments, "low"), name="decoder-long", max_reply=output, on_demand=True
        )
        """Decodes the others; started by the first."""

    async def start(self) -> None:
        """Start the processes and log their sandbox. Raises WorkerDiedError if one does not start."""
        try:
            await asyncio.gather(*(pool.start() for pool in self.pools))
        except BaseException:
            await self.close()
            raise
        log_sandbox(self.pool)

    async def close(self) -> None:
        """End the processes. Idempotent."""
        await asyncio.gather(*(pool.close() for pool in self.pools), *self._ending)

    def lost(self) -> UnavailableError:
        """For a call whose process was lost."""
        return _unavailable("the decoder was lost during this call, try again")

    def ending(self, process: WorkerProcess) -> None:
        """Collect a process of a container that was killed, in the background."""
        task = asyncio.get_running_loop().create_task(process.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    @property
    def pools(self) -> tuple[WorkerPool, WorkerPool]:
        """For metrics."""
        return self.pool, self.long_pool

    async def decode(
        self,
        audio: Buffer,
        encoding: Encoding,
        sample_rate_hz: int = 0,
        channels: int = 0,
        *,
        track: int = 0,
        channel: int | None = None,
        of: int = 1,
        client: str = "",
        on_long: OnLong = _nothing,
        least_seconds: float = 0.0,
    ) -> Decoded:
        """Decode `audio` to 16 kHz mono int16. `client`: whose turn it takes. `on_long`: awaited before a long decode begins.

        `sample_rate_hz` (4000..192000) and `channels` (1..8; 0 means 1) are for headerless encodings only; a container
        has its own. `track`: the number of the audio track, from 1; 0: a default one with sound, else the first with sound.
        `channel`: the one to decode, from 0, `of` so many that are wanted, which together may be as long as a recording;
        None: all are mixed. Times in the clip start at the first sample of the track, without the encoder delay where the
        container declares it.

        Raises AudioShorterError, before it decodes, for audio that is certainly shorter than `least_seconds`;
        InvalidArgumentError: AUDIO_UNSUPPORTED, AUDIO_POLYGLOT, ENCODING_MISMATCH, SAMPLE_RATE_REQUIRED and those
        of `_MESSAGES`; UnavailableError (DECODER_UNAVAILABLE) if no decoder process is available, or those that were at the
        file were killed, hung, or given too little processor time.
        """
        most = self.max_seconds / of
        header: dict[str, JsonValue] = {"encoding": encoding.value, "max_seconds": most, "channel": channel}
        if encoding is Encoding.CONTAINER:
            header |= {"demuxer": (container := sniff(audio)), "track": track}
            if least_seconds >= _WORTH_READING:
                header["least_seconds"] = least_seconds
        else:
            if track > 1:
                raise self.refusal("AUDIO_TRACK_UNKNOWN", 1)
            container = encoding.value.lower()
            channels = channels or 1
            seconds = self._checked_seconds(memoryview(audio).nbytes, encoding, sample_rate_hz, channels, most)
            if (channel or 0) >= channels:
                raise self.refusal("CHANNEL_UNKNOWN", channels)
            check_headerless(audio, encoding)
            if seconds < least_seconds:
                raise AudioShorterError(seconds)
            header |= {"rate": sample_rate_hz, "channels": channels}
        queued = busy = 0.0
        if memoryview(audio).nbytes <= _SHORT_BYTES:
            reply = await self.ask(self.pool, header | {"cpu_seconds": _SHORT_CPU}, audio, client)
            short, queued, busy = reply.header.get("refused") != UNFINISHED, reply.queued, reply.busy
        else:
            short = False
        if not short:
            await on_long()
            reply = await self.ask(self.long_pool, header, audio, client)
            queued, busy = queued + reply.queued, busy + reply.busy
        refused = reply.header.get("refused")
        if refused == SHORTER and least_seconds:
            value = reply.header.get("value")
            raise AudioShorterError(value / 1000 if isinstance(value, int) and value >= 0 else 0.0)
        if refused is not None:
            raise self.refusal(refused, reply.header.get("value"), limit=most)
        if reply.payload.nbytes == 0 or reply.payload.nbytes % 2:
            raise self.refusal("AUDIO_UNREADABLE")
        warnings = (
            *(warning for key, warning in WARNINGS.items() if reply.header.get(key) is True),
            *tracks_warning(reply.header, track),
        )
        start = decoded_start(reply.header)
        peak = _number(reply.header.get("peak"), 1.0)
        return Decoded(Clip(np.frombuffer(reply.payload, np.int16)), warnings, container, queued, busy, start, peak)

    async def ask(self, pool: WorkerPool, header: dict[str, JsonValue], audio: Buffer, client: str) -> Reply:
        """A child's answer; raises as `decode`."""
        try:
            return await pool.call(header, audio, timeout=self._timeout, client=client)
        except WorkerUnavailableError:
            raise _unavailable("no decoder is available, try again") from None
        except WorkerKilledError:
            raise self.lost() from None
        except WorkerTimeoutError as error:
            if error.starved:
                raise _unavailable("the server is too busy to decode the audio in time, try again") from None
            raise InvalidArgumentError("AUDIO_UNREADABLE", "the audio could not be decoded in time", field="audio") from None
        except (WorkerDiedError, WorkerFailedError):  # logged by the pool; the file is the cause, and might be again
            raise self.refusal("AUDIO_UNREADABLE") from None

    def _checked_seconds(self, size: int, encoding: Encoding, rate: int, channels: int, most: float) -> float:
        """The length of headerless audio. Raises InvalidArgumentError for a shape or a length that is not accepted."""
        if not size:
            raise InvalidArgumentError("AUDIO_EMPTY", "no audio was sent", field="audio")
        self.check_shape(encoding, rate, channels)
        if size < encoding.sample_bytes * channels:
            raise self.refusal("AUDIO_EMPTY")
        seconds = size / (encoding.sample_bytes * channels * rate)
        if seconds > most:
            raise self.refusal("AUDIO_TOO_LONG", limit=most)
        return seconds

    def check_shape(self, encoding: Encoding, rate: int, channels: int) -> None:
        """Raises InvalidArgumentError for headerless audio of a rate (Hz) or of channels that are not accepted."""
        if not rate:
            message = f"{encoding.value} audio has no header: config.sample_rate_hz is needed"
            raise InvalidArgumentError("SAMPLE_RATE_REQUIRED", message, field="config.sample_rate_hz")
        if not MIN_RATE <= rate <= MAX_RATE:
            raise self.refusal("SAMPLE_RATE_OUT_OF_RANGE", rate, "config.sample_rate_hz")
        if not 1 <= channels <= MAX_CHANNELS:
            raise self.refusal("CHANNELS_OUT_OF_RANGE", channels, "config.channels")

    def refusal(
        self, code: JsonValue, value: JsonValue = 0, field: str | None = None, *, limit: float | None = None
    ) -> InvalidArgumentError:
        """The error for a child's code. Of what the child sent, only a number reaches the client. `limit`: of its length (s)."""
        if not isinstance(code, str) or code not in _MESSAGES:
            code = "AUDIO_UNREADABLE"
        number = value if isinstance(value, int) and 0 <= value < 1 << 32 else 0
        message = _MESSAGES[code].format(limit=limit or self.max_seconds, value=number)
        return InvalidArgumentError(code, message, field=field or _FIELDS.get(code, "audio"))


def decoded_start(header: Mapping[str, JsonValue]) -> float:
    """Of a child's answer, as in `Decoded`."""
    return min(_number(header.get("start"), 0.0), _MAX_START)


def _number(value: JsonValue, default: float) -> float:
    """A child's number, if it is one and not below 0."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else default


def tracks_warning(header: Mapping[str, JsonValue], wanted: int = 0) -> tuple[AudioWarning, ...]:
    """A warning if the file has several audio tracks and none was asked for."""
    used, tracks = header.get("track"), header.get("tracks")
    if (
        wanted
        or not isinstance(used, int)
        or not isinstance(tracks, int)
        or not 1 <= used <= tracks <= _MAX_TRACKS
        or tracks == 1
    ):
        return ()
    message = f"the file has {tracks} audio tracks, and track {used} was aligned: audio_track chooses another"
    return (AudioWarning("AUDIO_SEVERAL_TRACKS", message),)


def _unavailable(message: str) -> UnavailableError:
    return UnavailableError("DECODER_UNAVAILABLE", message, retry_after=1.0)
