"""Whether an upload can be decoded while it arrives, by its beginning."""

from __future__ import annotations

from typing import Final

from aligner_svc.audio.arriving.forms import WIDTHS, Form, WaveStart
from aligner_svc.audio.arriving.samples import HEAD, LiveDecoding, LiveSamples
from aligner_svc.audio.arriving.wave import LiveWave
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.undecodable import MAX_CHANNELS, MAX_RATE, MIN_RATE
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers import Buffer

_LONGEST_HEADER: Final = 256 * 1024
"""Bytes of a WAV within which its samples begin, to be decoded while they arrive; programs put pictures and maps in front."""


class NotEnoughError(Exception):
    """More of the upload has to come before it is known whether it can be decoded while it arrives."""


async def open_live(
    decoder: Decoder, head: Buffer, encoding: Encoding, rate: int = 0, channels: int = 0, *, client: str = ""
) -> LiveDecoding | None:
    """For an upload that begins with `head`, which is not used up; None: it has to be complete before it is decoded.

    Raises NotEnoughError, and InvalidArgumentError like `Decoder.decode`.
    """
    if encoding is not Encoding.CONTAINER:
        decoder.check_shape(encoding, rate, channels or 1)
        return LiveSamples(decoder, client, Form(encoding.value, rate, channels or 1), encoding)
    view = memoryview(head)
    if view.nbytes < HEAD:
        raise NotEnoughError
    if bytes(view[:4]) not in {b"RIFF", b"RF64", b"BW64"} or bytes(view[8:12]) != b"WAVE":
        return None
    try:
        start = await _wave_start(decoder, view, client)
    except InvalidArgumentError:
        return None  # libav may know better
    if start is None:
        if view.nbytes < _LONGEST_HEADER:
            raise NotEnoughError
        return None
    return LiveWave(decoder, client, start)


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
