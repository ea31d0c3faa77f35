"""The decision on an upload that is declared to be a container."""

from __future__ import annotations

from aligner_svc.audio.sniff import foreign
from aligner_svc.audio.sniff.appended import appended
from aligner_svc.audio.sniff.containers import NAMES, by_frames, by_magic, by_tags
from aligner_svc.errors import InvalidArgumentError

_HEAD = 4096
"""Bytes examined at the start: enough for every magic number and for three MP3 frames."""


def sniff(audio: bytes | bytearray | memoryview) -> str:
    """The libav demuxer for `audio`, from an allow-list.

    Raises InvalidArgumentError: AUDIO_EMPTY for no bytes; AUDIO_UNSUPPORTED, naming what it is otherwise;
    AUDIO_POLYGLOT for audio that is a file of another kind as well.
    """
    view = memoryview(audio).cast("B")
    if not view.nbytes:
        raise InvalidArgumentError("AUDIO_EMPTY", "no audio was sent", field="audio")
    head = bytes(view[:_HEAD])
    container = by_magic(head)
    if container is None and head.startswith(b"ID3"):  # tags precede MP3, but also FLAC and AAC; alone they are no audio
        container, name = by_tags(view)
        if container is None:
            raise InvalidArgumentError("AUDIO_UNSUPPORTED", foreign.refusal(name), field="audio")
    if container is None:
        # Frames are searched for anywhere in the head, so magic numbers take precedence:
        # three frames behind the header of an executable do not make it music.
        container = None if foreign.certain(head) or foreign.second_opinion(head) else by_frames(head)
    if container is None:
        raise InvalidArgumentError("AUDIO_UNSUPPORTED", foreign.describe(head), field="audio")
    if container == "nistsphere" and (coding := foreign.sphere_coding(view)):
        raise InvalidArgumentError("AUDIO_UNSUPPORTED", foreign.refusal(coding), field="audio")
    other = foreign.inside(head) or foreign.second_opinion(head) or appended(view, container)
    if other:
        message = f"this is {NAMES[container]} and {other} at once: send the audio alone"
        raise InvalidArgumentError("AUDIO_POLYGLOT", message, field="audio")
    return container
