"""Whether an upload can be decoded while it arrives, by its beginning."""

from __future__ import annotations

from typing import Final

from aligner_svc.audio.arriving.container import STREAMABLE, LiveContainer
from aligner_svc.audio.arriving.forms import WIDTHS, Form, WaveStart
from aligner_svc.audio.arriving.samples import HEAD, LiveDecoding, LiveSamples
from aligner_svc.audio.arriving.spooled import SpooledContainer
from aligner_svc.audio.arriving.wave import LiveWave
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.headers.mp4 import index_first
from aligner_svc.audio.sniff import sniff
from aligner_svc.audio.undecodable import MAX_CHANNELS, MAX_RATE, MIN_RATE
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers import Buffer

_LONGEST_HEADER: Final = 256 * 1024
"""Bytes within which the samples of a WAV, or the index of an MP4, have to begin for it to be decoded while it arrives: programs
put pictures and maps in front."""
_SNIFFED: Final = 64 * 1024


class NotEnoughError(Exception):
    """More of the upload has to come before it is known whether it can be decoded while it arrives."""


async def open_live(
    decoder: Decoder, head: Buffer, encoding: Encoding, rate: int = 0, channels: int = 0, *, client: str = "", long: bool = False
) -> LiveDecoding | None:
    """For an upload that begins with `head`, which is not used up; None: it is decoded when it is complete.

    `long`: it has much already, or takes long to come.

    Raises NotEnoughError, and InvalidArgumentError like `Decoder.decode`.
    """
    if encoding is not Encoding.CONTAINER:
        decoder.check_shape(encoding, rate, channels or 1)
        return LiveSamples(decoder, client, Form(encoding.value, rate, channels or 1), encoding)
    view = memoryview(head)
    if view.nbytes < HEAD:
        raise NotEnoughError
    if bytes(view[:4]) not in {b"RIFF", b"RF64", b"BW64"} or bytes(view[8:12]) != b"WAVE":
        return await _container(decoder, view, long=long)
    try:
        start = await _wave_start(decoder, view, client)
    except InvalidArgumentError:
        return None  # libav may know better
    if start is None:
        if view.nbytes < _LONGEST_HEADER:
            raise NotEnoughError
        return None
    return LiveWave(decoder, client, start)


async def _container(decoder: Decoder, view: memoryview, *, long: bool) -> LiveContainer | None:
    """A process takes half a second to load: only for what is long, or takes as long to come."""
    if view.nbytes < _SNIFFED and not long:
        raise NotEnoughError
    try:
        demuxer = sniff(view[:_SNIFFED])
    except InvalidArgumentError:
        return None
    first = index_first(view) if demuxer == "mov" else True
    if first is None and view.nbytes < _LONGEST_HEADER:
        raise NotEnoughError
    if demuxer not in STREAMABLE or decoder.containers >= decoder.most_containers:
        return None
    if not long:
        raise NotEnoughError
    if not first:
        return SpooledContainer(decoder, demuxer)
    decoding = LiveContainer(decoder, demuxer)
    await decoding.begin()
    return decoding


async def _wave_start(decoder: Decoder, data: memoryview, client: str) -> WaveStart | None:
    """None if there is too little of it. Raises InvalidArgumentError if it is not decoded in pieces."""
    reply = await decoder.ask(decoder.pool, {"wave": True}, data[:_LONGEST_HEADER], client)
    header = reply.header
    if header.get("more"):
        return None
    form = header.get("form")
    if header.get("refused") is not None or not isinstance(form, dict) or form.get("kind") not in WIDTHS:
        raise decoder.refusal(header.get("refused"), header.get("value"))
    numbers = [form.get("rate"), form.get("channels"), header.get("start"), header.get("claimed")]
    rate, channels, start, claimed = (number if isinstance(number, int) else 0 for number in numbers)
    if not 1 <= channels <= MAX_CHANNELS or not MIN_RATE <= rate <= MAX_RATE or start < 0 or claimed < 0:
        raise decoder.refusal("AUDIO_UNREADABLE")
    return WaveStart(Form(str(form.get("kind")), rate, channels), start, claimed)
