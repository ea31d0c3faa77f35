"""`aligner align --live`: words as they come, of a file that is played or of stdin."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.cli import app
from aligner_svc.cli.alignment import live
from tests.kit.recordings import SAMPLE, samples
from tests.kit.scripted_aligner import scripted_server


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


@pytest.fixture
def aligner(server, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(live.time, "sleep", waited.append)

    def run(*arguments: object, stdin: bytes | None = None):
        command = ["align", "--target", server.target, "--live", "--text", "hello big world", *map(str, arguments)]
        return CliRunner().invoke(app, command, input=stdin), waited

    return run


def test_a_file_is_played_as_samples_in_its_own_time(aligner, server):
    result, waited = aligner(SAMPLE)
    assert result.exit_code == 0, result.output
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["hello", "big", "world"]
    call = server.script.calls[0]
    played = np.frombuffer(call.audio, np.int16)
    np.testing.assert_allclose(played, samples(), atol=1)
    assert len(waited) == -(-len(played) // 1600)
    assert max(waited) <= len(played) / 16_000 + 0.1
    assert server.script.configs[0].encoding == pb.AUDIO_ENCODING_LINEAR16


def test_stdin_is_sent_as_it_comes(aligner, server):
    result, waited = aligner("-", stdin=b"RIFFaudio")
    assert result.exit_code == 0, result.output
    assert server.script.calls[0].audio == b"RIFFaudio"
    assert waited == []


def test_samples_without_a_header_are_paced_by_their_rate(aligner, server, tmp_path):
    bare = tmp_path / "speech.raw"
    bare.write_bytes(bytes(8000))
    result, waited = aligner(bare, "--encoding", "mulaw", "--sample-rate", 8000)
    assert result.exit_code == 0, result.output
    assert len(waited) == 10
    assert server.script.configs[0].encoding == pb.AUDIO_ENCODING_MULAW


@pytest.mark.parametrize("more", [("-f", "srt"), ("-o", "out.json")])
def test_it_has_one_format(aligner, more):
    result, _ = aligner(SAMPLE, *more)
    assert result.exit_code == 2
    assert "prints words as they come" in result.output


def test_a_file_without_sound_fails_with_a_reason(aligner, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    result, _ = aligner(text)
    assert result.exit_code == 1
    assert "could not be decoded" in result.output
