"""A subtitle file comes in, and the same file goes out with right times: through the API and the command line."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from aligner_client import AsyncAligner, CueStatus, InvalidArgumentError, Retiming
from aligner_svc.cli import app
from aligner_svc.config.limits import Limits
from tests.kit.recordings import SAMPLE, TRANSCRIPT, WORDS
from tests.kit.servers import serving

FIRST, SECOND = " ".join(WORDS[:8]), " ".join(WORDS[8:])
SRT = (
    f"1\r\n00:00:03,000 --> 00:00:05,100\r\n<i>{FIRST}</i>\r\n\r\n"
    "2\r\n00:00:05,200 --> 00:00:05,300\r\n[thunder]\r\n\r\n"
    f"3\r\n00:00:05,400 --> 00:00:07,600\r\n- {SECOND}\r\n"
)


@pytest.mark.parametrize("limit", ["one message", "chunks"])
async def test_cues_come_back_in_order_with_the_times_of_their_words(limit: str) -> None:
    limits = Limits() if limit == "one message" else Limits(unary_audio_bytes=16 * 1024)
    async with serving(workers=1, limits=limits) as running, AsyncAligner(running.address) as client:
        plain = await client.align(SAMPLE, TRANSCRIPT)
        answer = await client.align(SAMPLE, SRT, transcript_format="srt")
        said = [word for word in answer.words if any(map(str.isalnum, word.text)) and word.text != "[thunder]"]
        assert [SRT[word.char_start : word.char_end] for word in said] == [word.text for word in plain.words]
        assert answer.cues[0].start == pytest.approx(plain.words[0].start, abs=0.03)
        assert answer.cues[2].end == pytest.approx(plain.words[-1].end, abs=0.03)
        assert [cue.status for cue in answer.cues] == [CueStatus.FOUND, CueStatus.MOVED, CueStatus.FOUND]
        assert [SRT[cue.char_start : cue.char_end] for cue in answer.cues] == [f"<i>{FIRST}</i>", "[thunder]", f"- {SECOND}"]
        again = await client.align(SAMPLE, answer.retimed(), transcript_format="srt")
        assert max(abs(cue.shift) for cue in again.cues) < 0.03
        framed = await client.align(SAMPLE, SRT, transcript_format="srt", retiming=Retiming(frame_rate=10))
        assert all(round(cue.start, 1) == cue.start for cue in framed.cues)
        with pytest.raises(InvalidArgumentError) as refused:
            await client.align(SAMPLE, TRANSCRIPT, transcript_format="vtt")
        assert refused.value.reason == "SUBTITLES_INVALID"
        with pytest.raises(InvalidArgumentError) as long:
            await client.align(SAMPLE, "NOTE " + "x" * limits.transcript_chars + "\n\n" + SRT, transcript_format="srt")
        assert long.value.reason == "TRANSCRIPT_TOO_LONG"


async def test_the_command_changes_the_times_and_nothing_else(tmp_path) -> None:
    source, out = tmp_path / "talk.srt", tmp_path / "right.srt"
    source.write_bytes(b"\xef\xbb\xbf" + SRT.encode())
    async with serving(workers=1) as running:
        command = ["retime", "--target", running.address, str(SAMPLE), str(source)]
        shown = await asyncio.to_thread(CliRunner().invoke, app, [*command, "--dry-run"])
        assert shown.exit_code == 0, shown.output
        assert "2 of 3 cues found by their words" in shown.output
        assert not out.exists()
        written = await asyncio.to_thread(CliRunner().invoke, app, [*command, "-o", str(out)])
        assert written.exit_code == 0, written.output
    digits = str.maketrans("", "", "0123456789")
    assert out.read_bytes().decode().translate(digits) == source.read_bytes().decode().translate(digits)
    assert out.read_bytes() != source.read_bytes()


def test_a_file_of_another_kind_or_encoding_is_refused_before_a_call(tmp_path) -> None:
    (tmp_path / "talk.docx").write_text("x")
    (tmp_path / "talk.srt").write_bytes(SRT.encode("cp1252") + b"\xe9")
    other = CliRunner().invoke(app, ["retime", str(SAMPLE), str(tmp_path / "talk.docx")])
    assert other.exit_code == 2
    assert ".srt, .vtt, .ass, .ssa" in other.output
    latin = CliRunner().invoke(app, ["retime", str(SAMPLE), str(tmp_path / "talk.srt")])
    assert latin.exit_code == 1
    assert "--text-encoding" in latin.output
