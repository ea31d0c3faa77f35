"""What an upload is, by its bytes: a container that is decoded, or something else with a name.

libav's own probing is never used: it also finds playlists, which make it open other files and URLs.
Every check reads a bounded part of the upload, at most its first and last 64 KiB, so that it may run on the event loop.
"""

from __future__ import annotations

from aligner_svc.audio.sniff.containers import ACCEPTED
from aligner_svc.audio.sniff.headerless import check_headerless, check_tail
from aligner_svc.audio.sniff.verdict import sniff

__all__ = ["ACCEPTED", "check_headerless", "check_tail", "sniff"]
