"""The decision about an upload that says it is a container."""

from __future__ import annotations

from aligner_svc.audio.sniff import foreign
from aligner_svc.audio.sniff.appended import appended
from aligner_svc.audio.sniff.containers import by_frames, by_magic, called
from aligner_svc.audio.sniff.id3 import Tagged, behind_tags
from aligner_svc.errors import InvalidArgumentError

_HEAD = 4096
"""Bytes looked at: enough for every magic number and for three MP3 frames."""


def sniff(audio: bytes | bytearray | memoryview) -> str:
    """The libav demuxer for `audio`, out of an allow-list.

    Raises InvalidArgumentError: AUDIO_EMPTY for no bytes; AUDIO_UNSUPPORTED, with a name for what it is otherwise;
    AUDIO_POLYGLOT for audio that is a file of another kind as well.
    """
    view = memoryview(audio).cast("B")
    if not view.nbytes:
        raise InvalidArgumentError("AUDIO_EMPTY", "no audio was sent", field="audio")
    head = bytes(view[:_HEAD])
    container = by_magic(head) or _tagged(head, view)
    if container is None:
        # Frames are looked for anywhere in the head, so whatever has a magic number of its own goes first:
        # three frames behind the header of an executable do not make it music.
        container = None if foreign.certain(head) or foreign.second_opinion(head) else by_frames(head)
    if container is None:
        raise InvalidArgumentError("AUDIO_UNSUPPORTED", foreign.describe(head), field="audio")
    other = foreign.inside(head) or foreign.second_opinion(head) or appended(view, container)
    if other:
        message = f"this is {called(container)} and {other} at once: send the audio alone"
        raise InvalidArgumentError("AUDIO_POLYGLOT", message, field="audio")
    return container


def _tagged(head: bytes, view: memoryview) -> str | None:
    """ID3 tags stand before MP3, but also before FLAC and AAC; alone they are no audio."""
    if not head.startswith(b"ID3"):
        return None
    found = behind_tags(view)
    if isinstance(found, Tagged):
        return found.container
    raise InvalidArgumentError("AUDIO_UNSUPPORTED", foreign.refusal(found), field="audio")
