"""`aligner align` against a real server: what comes out, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from aligner_client import channel
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.formats import Format
from aligner_svc.cli import app
from aligner_svc.cli.alignment.output import write_file
from aligner_svc.cli.alignment.request import OutputFormat
from aligner_svc.cli.server_options import DEFAULT_TARGET
from tests.kit.scripted_aligner import Fault, scripted_server

ALIGNER = [sys.executable, "-c", "from aligner_svc.cli import main; main()"]


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


@pytest.fixture
def aligner(server):
    def run(*arguments: object, stdin: bytes | None = None):
        return CliRunner().invoke(app, ["align", "--target", server.target, *map(str, arguments)], input=stdin)

    return run


@pytest.fixture
def speech(tmp_path):
    audio = tmp_path / "speech.wav"
    audio.write_bytes(b"RIFFaudio")
    audio.with_suffix(".txt").write_bytes(b"\xef\xbb\xbfhello big\r\nworld\n")
    return audio


def test_constants_copied_to_avoid_imports_are_equal_to_the_originals():
    assert {f.value for f in OutputFormat} == {f.value for f in Format} | {"table"}
    assert DEFAULT_TARGET == channel.DEFAULT_TARGET


def test_json_in_a_pipe_with_the_transcript_next_to_the_audio(aligner, server, speech):
    result = aligner(speech)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [word["text"] for word in answer["words"]] == ["hello", "big", "world"]
    assert set(answer["words"][0]) == {"text", "start", "end", "confidence", "status", "char_start", "char_end"}
    assert answer["words"][2]["end"] == 1.4
    assert "summary" in answer
    assert server.script.calls[0].transcript == "hello big\r\nworld\n"
    assert result.stderr == ""


@pytest.mark.parametrize("source", ["--text", "--text-file", ".lab"])
def test_other_ways_to_give_the_transcript(aligner, server, speech, tmp_path, source):
    speech.with_suffix(".txt").unlink()
    other = tmp_path / "other"
    other.write_text("one two")
    speech.with_suffix(".lab").write_text("one two") if source == ".lab" else None
    arguments = {"--text": ["--text", "one two"], "--text-file": ["--text-file", other], ".lab": []}[source]
    assert aligner(speech, *arguments).exit_code == 0
    assert server.script.calls[0].transcript == "one two"


def test_headerless_audio_and_language_reach_the_server(aligner, server, speech):
    assert aligner(speech, "--encoding", "mulaw", "--sample-rate", 8000, "--channels", 2, "--language", "de").exit_code == 0
    call = server.script.calls[0]
    assert (call.encoding, call.sample_rate_hz, call.channels, call.language) == (pb.AUDIO_ENCODING_MULAW, 8000, 2, "de")


def test_subtitles_are_laid_out_as_asked_for(aligner, speech):
    text = "one two three four five six"
    result = aligner(speech, "--text", text, "--format", "srt", "--line-length", 9, "--lines", 1, "--cue-seconds", 1)
    assert result.exit_code == 0, result.output
    assert [cue.splitlines()[2:] for cue in result.stdout.split("\n\n")] == [["one two"], ["three"], ["four five"], ["six"]]


def test_a_suffix_of_no_format_is_refused_with_those_of_all(aligner, speech):
    result = aligner(speech, "--out", "talk.docx")
    assert ".docx" in result.stderr
    assert ".srt, .vtt, .TextGrid" in " ".join(result.stderr.split())
    assert aligner(speech, "--out", "talk.docx", "--format", "srt").exit_code == 0


def test_a_film_is_aligned_by_the_track_asked_for_and_subtitled_on_its_own_clock(aligner, server, speech):
    server.script.audio_start_ms = 2000
    result = aligner(speech, "--track", 2, "--format", "srt")
    assert result.stdout.startswith("1\n00:00:02,000 --> ")
    assert server.script.configs[0].audio_track == 2


def test_a_table_for_people(aligner, server, speech):
    server.script.warnings = [pb.Warning(code="TRANSCRIPT_MISMATCH", message="text and audio differ")]
    result = aligner(speech, "--format", "table", "--text", "hello [bold] missing \x1b[31m")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["word", "start", "end", "duration", "confidence", "status"]
    assert lines[1].split() == ["hello", "0.000", "0.400", "0.400", "████░░░░", "0.50", "aligned"]
    assert lines[2].split()[0] == "[bold]"
    assert lines[3].split()[-2:] == ["not", "found"]
    assert "\x1b" not in result.stdout
    assert "2.00 s of audio, 4 words, scripted-1 (en), match 0.75" in result.stdout
    assert "warning: text and audio differ (TRANSCRIPT_MISMATCH)" in result.stdout


@pytest.mark.parametrize("name", ["srt", "vtt", "ctm", "textgrid", "json", "table"])
def test_warnings_that_the_format_lacks_are_on_stderr(aligner, server, speech, name):
    server.script.warnings = [
        pb.Warning(code="TRANSCRIPT_MISMATCH", message="text and audio\x1b differ"),
        pb.Warning(code="WORDS_NOT_FOUND", message="1 of 3 words"),
    ]
    result = aligner(speech, "--format", name)
    assert result.exit_code == 0, result.output
    expected = [] if name in {"json", "table"} else [
        "warning: text and audio\N{REPLACEMENT CHARACTER} differ (TRANSCRIPT_MISMATCH)",
        "warning: 1 of 3 words (WORDS_NOT_FOUND)",
    ]  # fmt: skip
    assert result.stderr.splitlines() == expected
    assert ("WORDS_NOT_FOUND" in result.stdout) is (not expected)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("out.srt", "1\n"),
        ("out.vtt", "WEBVTT"),
        ("out.words.vtt", "WEBVTT"),
        ("out.TextGrid", "File type"),
        ("out.ctm", "speech 1 "),
        ("out.labels.txt", "0.000000\t"),
        ("out.json", "{"),
        ("out", "{"),
    ],
)
def test_the_name_of_the_output_file_chooses_its_format(aligner, speech, tmp_path, name, start):
    out = tmp_path / "new" / name
    result = aligner(speech, "-o", out)
    assert (result.exit_code, result.output) == (0, "")
    text = out.read_text(encoding="utf-8")
    assert text.startswith(start)
    assert ("<00:" in text) is (name == "out.words.vtt")


def test_stdin_is_streamed_and_so_is_a_file_too_large_for_one_message(aligner, server, speech):
    assert aligner("-", "--text", "one", stdin=b"x" * 100_000).exit_code == 0
    server.script.unary_limit = 8
    assert aligner(speech).exit_code == 0
    server.script.unary_limit = 9
    assert aligner(speech).exit_code == 0
    assert aligner(speech, "--stream").exit_code == 0
    assert [call.method for call in server.script.calls] == ["StreamAlign", "StreamAlign", "Align", "StreamAlign"]
    assert server.script.calls[0].audio == b"x" * 100_000
    assert server.script.calls[1].audio == b"RIFFaudio"


def test_a_failure_says_what_failed_why_and_what_to_try(aligner, server, speech):
    server.script.faults.append(
        Fault(
            grpc.StatusCode.INVALID_ARGUMENT,
            "the audio cannot be read",
            "UNREADABLE_AUDIO",
            violations=[("audio", "not a known container")],
        )
    )
    result = aligner(speech)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{speech} could not be aligned" in result.stderr
    assert "the audio cannot be read (UNREADABLE_AUDIO)" in result.stderr
    assert "audio: not a known container" in result.stderr
    server.script.faults.append(Fault("HANG"))
    result = aligner(speech, "--timeout", 0.05)
    assert result.exit_code == 1
    assert "--timeout" in result.stderr


def test_no_server_is_exit_code_69(speech):
    result = CliRunner().invoke(app, ["align", str(speech), "--target", "127.0.0.1:1"])
    assert result.exit_code == 69
    assert "no answer from 127.0.0.1:1" in result.stderr
    assert "aligner serve" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.wav"],
        ["-"],
        ["{speech}", "--text", "a", "--text-file", "{speech}"],
        ["{speech}", "--sample-rate", "8000"],
        ["{speech}", "--encoding", "linear16"],
        ["{speech}", "--out", "{folder}"],
        ["{speech}", "--out", "talk.docx"],
        ["{speech}", "--skip-existing"],
        ["{speech}", "--format", "json", "--lines", "1"],
        ["{folder}"],
        ["{folder}", "--out", "{speech}"],
        ["{folder}", "--out", "x", "--text", "a"],
        ["{folder}", "--out", "x", "--format", "table"],
    ],
)
def test_wrong_usage_is_exit_code_2(aligner, server, speech, arguments):
    result = aligner(*(a.format(speech=speech, folder=speech.parent) for a in arguments))
    assert result.exit_code == 2, result.output
    assert server.script.calls == []


def test_files_that_cannot_be_read_or_written_are_reported(aligner, speech, tmp_path):
    speech.with_suffix(".txt").write_bytes(b"caf\xe9")
    result = aligner(speech)
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr
    result = aligner(speech, "--text", "one", "-o", speech / "out.json")
    assert result.exit_code == 1
    assert str(speech) in result.stderr


@pytest.mark.parametrize("width", [20, 40, 60])
def test_no_number_is_cut_off_on_a_narrow_terminal(aligner, speech, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    result = aligner(speech, "--format", "table", "--text", "incomprehensibilities hello")
    assert result.exit_code == 0, result.output
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout
    shown = result.stdout.partition(" s of audio")[0]
    assert {"0.000", "0.400", "0.500", "0.900"} <= set(shown.split())
    assert all(len(line) <= width for line in shown.splitlines() if "incomprehensibilities" not in line)


def test_a_pipe_gets_nothing_but_the_result(server, speech):
    result = subprocess.run([*ALIGNER, "align", speech, "--target", server.target], capture_output=True, check=True)
    assert len(json.loads(result.stdout)["words"]) == 3
    assert result.stderr == b""


def test_a_terminal_gets_a_table_and_separate_progress(server, speech):
    screen, terminal = pty.openpty()
    command = [*ALIGNER, "align", speech, "--stream", "--target", server.target]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True)
    assert len(json.loads(result.stdout)["words"]) == 3
    assert b"uploading" in os.read(screen, 65536)
    subprocess.run(command, stdout=terminal, stderr=subprocess.DEVNULL, env=environment, check=True)
    assert b"duration" in os.read(screen, 65536)
    os.close(terminal)
    os.close(screen)


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for name, text in {"a.wav": "one", "deep/b.FLAC": "two words", "deep/bad.mp3": "three", "c.wav": None}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"audio of {name}".encode())
        if text:
            path.with_suffix({"a.wav": ".lab", "deep/b.FLAC": ".TXT"}.get(name, ".txt")).write_text(text)
    (root / "lonely.txt").write_text("no audio")
    (root / "LONELY.LAB").write_text("no audio")
    (root / "deep" / "latin.wav").write_bytes(b"x")
    (root / "deep" / "latin.txt").write_bytes(b"caf\xe9")
    return root


def test_a_failing_file_of_a_directory_does_not_stop_the_others(aligner, server, corpus, tmp_path):
    server.script.faulty_audio[b"audio of deep/bad"] = Fault(
        grpc.StatusCode.INVALID_ARGUMENT, "the audio cannot be read", "UNREADABLE_AUDIO"
    )
    out = tmp_path / "out"
    result = aligner(corpus, "--out", out, "--jobs", 2)
    assert result.exit_code == 1, result.output
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["a.json", "deep/b.json"]
    assert [w["text"] for w in json.loads((out / "deep/b.json").read_text())["words"]] == ["two", "words"]
    assert result.stdout == ""
    shown = " ".join(result.stderr.split())
    assert "UNREADABLE_AUDIO" in shown
    assert "deep/bad.mp3" in shown
    assert "deep/latin.wav" in shown
    assert "c.wav: no .txt or .lab file of the same name" in shown
    assert "lonely.txt: no audio file of the same name" in shown
    assert "LONELY.LAB: no audio file of the same name" in shown
    assert "2 of 4 files aligned into" in shown
    assert "2 failed, 1 skipped" in shown


def test_a_directory_without_failures_is_exit_code_0(aligner, server, corpus, tmp_path):
    (corpus / "deep/latin.txt").unlink()
    (corpus / "a.mp3").write_bytes(b"other audio of a")
    server.script.unary_limit = 14
    result = aligner(corpus, "--out", corpus, "--format", "textgrid")
    assert result.exit_code == 0, result.output
    names = sorted(str(p.relative_to(corpus)) for p in corpus.rglob("*.TextGrid"))
    assert names == ["a.mp3.TextGrid", "a.wav.TextGrid", "deep/b.TextGrid", "deep/bad.TextGrid"]
    assert sorted(call.method for call in server.script.calls) == ["Align", "StreamAlign", "StreamAlign", "StreamAlign"]


@pytest.mark.parametrize("name", ["json", "srt"])
def test_files_of_a_directory_with_warnings_are_listed(aligner, server, corpus, tmp_path, name):
    server.script.faulty_audio[b"audio of deep/bad"] = Fault(
        grpc.StatusCode.INVALID_ARGUMENT, "the audio cannot be read", "UNREADABLE_AUDIO"
    )
    server.script.warnings = [pb.Warning(code="A", message="first"), pb.Warning(code="B", message="second")]
    (corpus / "deep/latin.txt").unlink()
    shown = " ".join(aligner(corpus, "--out", tmp_path / "out", "--format", name).stderr.split())
    assert (
        "aligned with warnings file warning what a.wav A first a.wav B second deep/b.FLAC A first deep/b.FLAC B second" in shown
    )
    assert "2 of 3 files aligned into" in shown
    assert "2 of them with warnings, 1 failed, 2 skipped" in shown
    (corpus / "deep/bad.txt").unlink()
    assert aligner(corpus, "--out", tmp_path / "out", "--format", name).exit_code == 0


def test_a_directory_without_pairs_or_without_a_server(aligner, corpus, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert aligner(empty, "--out", tmp_path / "out").exit_code == 1
    result = CliRunner().invoke(app, ["align", str(corpus), "--out", str(tmp_path / "out"), "--target", "127.0.0.1:1"])
    assert result.exit_code == 69
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["{speech}"], ["{speech}", "--stream"], ["-", "--text", "one"], ["{speech.parent}", "--out", "out"]]
)
def test_an_interrupt_is_exit_code_130_without_a_traceback(server, speech, arguments):
    server.script.faults.append(Fault("HANG"))
    command = [*ALIGNER, "align", "--target", server.target, *(argument.format(speech=speech) for argument in arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=speech.parent)
    server.script.arrived.acquire()
    process.send_signal(signal.SIGINT)
    # stdin stays open, as a live recording would.
    process.wait()
    assert (process.returncode, process.stderr.read()) == (130, b"")
    process.stdin.close()
    process.stderr.close()


@pytest.mark.parametrize(("command", "heavy"), [((), ("pydantic",)), (("align",), ())])
def test_nothing_heavy_is_imported_for_help(command, heavy):
    code = (
        f"import sys\nfrom aligner_svc.cli import app\ntry: app([*{command}, '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(shown.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded.isdisjoint({"grpc", "numpy", "google.protobuf", *heavy})


def test_files_are_written_atomically_and_links_and_pipes_are_kept(tmp_path):
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("before")
    link.symlink_to(target)
    os.mkfifo(pipe)
    write_file(link, "after\r\n")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"after\r\n")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"target", "link", "pipe"}


def test_a_run_is_continued_where_it_ended(aligner, server, corpus, tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "a.json").write_text("made before")
    (out / "deep" / "b.json").touch()
    (corpus / "deep" / "latin.txt").unlink()
    result = aligner(corpus, "--out", out, "--skip-existing")
    assert result.exit_code == 0, result.output
    assert "2 of 2 files aligned" in result.stderr
    assert "1 were there already" in result.stderr
    assert (out / "a.json").read_text() == "made before"
    assert "already" in aligner(corpus, "--out", out, "--skip-existing").stderr
    assert len([call for call in server.script.calls if call.method == "Align"]) == 2


def test_a_file_that_is_done_is_left_alone(aligner, server, speech, tmp_path):
    out = tmp_path / "out.srt"
    for _ in range(2):
        assert aligner(speech, "--out", out, "--skip-existing").exit_code == 0
    assert len(server.script.calls) == 1


def test_a_transcript_for_each_channel_reaches_the_server(aligner, server, speech, tmp_path):
    for name in ("agent", "caller"):
        (tmp_path / name).write_text(f"{name} speaking")
    given = ["--channel", f"1={tmp_path}/caller", "--channel", f"0={tmp_path}/agent"]
    for stream in ([], ["--stream"]):
        assert aligner(speech, *given, *stream).exit_code == 0
        sent = {one.channel: one.transcript for one in server.script.configs[-1].channel_transcripts}
        assert (sent, server.script.configs[-1].transcript) == ({0: "agent speaking", 1: "caller speaking"}, "")
    for wrong in ("0", "0=absent", "8=" + str(tmp_path / "agent"), f"1={tmp_path}/agent", f"x={tmp_path}/agent"):
        assert aligner(speech, *given, "--channel", wrong).exit_code == 2
    assert aligner(speech, *given, "--text", "one").exit_code == 2
    assert aligner(speech, *given, "--live").exit_code == 2
