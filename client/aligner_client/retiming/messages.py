"""The values of re-timing and their protobuf messages. Seconds here, milliseconds on the wire."""

from __future__ import annotations

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.retiming.files import TranscriptFormat
from aligner_client.retiming.retime import Cue, CueStatus, Retiming

FORMATS = {
    TranscriptFormat.PLAIN: pb.TRANSCRIPT_FORMAT_UNSPECIFIED,
    TranscriptFormat.SRT: pb.TRANSCRIPT_FORMAT_SRT,
    TranscriptFormat.VTT: pb.TRANSCRIPT_FORMAT_VTT,
    TranscriptFormat.ASS: pb.TRANSCRIPT_FORMAT_ASS,
}

# A status from a later version of the API is read as DOUBTFUL.
_CUE_STATUSES = {pb.CueStatus.Value(f"CUE_STATUS_{status.value}"): status for status in CueStatus}


def retiming_message(options: Retiming) -> pb.Retiming:
    return pb.Retiming(
        max_shift_ms=round(options.max_shift * 1000),
        lead_in_ms=round(options.lead_in * 1000),
        lead_out_ms=round(options.lead_out * 1000),
        min_duration_ms=round(options.min_duration * 1000),
        max_duration_ms=round(options.max_duration * 1000),
        frame_rate=options.frame_rate,
    )


def read_cue(cue: pb.Cue) -> Cue:
    return Cue(
        start=cue.start_ms / 1000,
        end=cue.end_ms / 1000,
        status=_CUE_STATUSES.get(cue.status, CueStatus.DOUBTFUL),
        shift=cue.shift_ms / 1000,
        char_start=cue.char_start,
        char_end=cue.char_end,
    )
