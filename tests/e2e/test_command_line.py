"""`aligner align` and `aligner info` against a real server, as a person types them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner_svc.cli import app
from tests.kit.recordings import SAMPLE, TRANSCRIPT, WORDS


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


async def aligner(*arguments: object, stdin: bytes = b"") -> Done:
    """In this process: a new one takes a second of CPU, and the pages of docs/ run the console script."""
    done = await asyncio.to_thread(
        CliRunner().invoke, app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "120"}
    )
    return Done(done.exit_code, done.stdout, done.stderr)


def check_json(out: str) -> None:
    answer = json.loads(out)
    assert [word["text"] for word in answer["words"]] == list(WORDS)
    assert {word["status"] for word in answer["words"]} == {"ALIGNED"}
    assert answer["summary"]["audio_seconds"] == 4.905


def check_table(out: str) -> None:
    assert [line.split()[0] for line in out.splitlines()[1 : len(WORDS) + 1]] == list(WORDS)
    assert "4.9" in out
    assert "pocketsphinx" in out


def check_srt(out: str) -> None:
    assert out.startswith("1\n00:00:00,")
    assert " ".join(line for line in out.splitlines() if line and "-->" not in line and not line.isdecimal()) == TRANSCRIPT


def check_vtt(out: str) -> None:
    assert out.startswith("WEBVTT\n")
    assert "wizard" in out
    assert re.search(r"^00:00:00\.\d{3} --> ", out, re.MULTILINE)


def check_textgrid(out: str) -> None:
    assert out.startswith('File type = "ooTextFile"')
    assert [text for text in re.findall(r'text = "(.*?)"', out) if text] == list(WORDS)


def check_ctm(out: str) -> None:
    rows = [line.split() for line in out.splitlines() if not line.startswith(";;")]
    assert [row[4] for row in rows] == list(WORDS)
    assert {row[0] for row in rows} == {SAMPLE.stem}


FORMATS: dict[str, Callable[[str], None]] = {
    "json": check_json,
    "table": check_table,
    "srt": check_srt,
    "vtt": check_vtt,
    "textgrid": check_textgrid,
    "ctm": check_ctm,
}


@pytest.mark.parametrize("name", FORMATS)
async def test_formats(server, name):
    done = await aligner("align", SAMPLE, "--target", server.address, "--format", name)
    assert done.status == 0, done.err
    FORMATS[name](done.out)


async def test_streamed(server):
    done = await aligner("align", SAMPLE, "--target", server.address, "--stream")
    assert done.status == 0, done.err
    check_json(done.out)


async def test_from_stdin_to_a_file_that_names_the_format(server, tmp_path):
    out = tmp_path / "deep" / "er" / "speech.srt"
    done = await aligner("align", "-", "--text", TRANSCRIPT, "--target", server.address, "-o", out, stdin=SAMPLE.read_bytes())
    assert (done.status, done.out) == (0, ""), done.err
    check_srt(out.read_text(encoding="utf-8"))


async def test_a_directory_with_a_broken_file_in_it(server, tmp_path):
    corpus, results = tmp_path / "corpus", tmp_path / "results"
    for name in ("one", "deep/two"):
        audio = corpus / f"{name}.flac"
        audio.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE, audio)
        audio.with_suffix(".txt").write_text(TRANSCRIPT, encoding="utf-8")
    (corpus / "broken.wav").write_text("this is no sound at all")
    (corpus / "broken.txt").write_text("words")
    done = await aligner("align", corpus, "--out", results, "--target", server.address)
    assert done.status == 1
    assert re.search(r"broken\.wav\s+AUDIO_UNSUPPORTED", done.err)
    assert f"2 of 3 files aligned into {results}, 1 failed" in done.err
    assert sorted(str(path.relative_to(results)) for path in results.rglob("*.*")) == ["deep/two.json", "one.json"]
    for path in results.rglob("*.json"):
        check_json(path.read_text(encoding="utf-8"))


async def test_a_refusal_says_why(server):
    done = await aligner("align", SAMPLE, "--language", "it", "--target", server.address)
    assert (done.status, done.out) == (1, "")
    assert "Qwen3-ForcedAligner" in done.err
    assert "Traceback" not in done.err


async def test_info(server):
    done = await aligner("info", "--target", server.address, "--format", "json")
    assert done.status == 0, done.err
    assert "en" in json.loads(done.out)["languages"]


async def test_no_server(tmp_path):
    done = await aligner("align", SAMPLE, "--target", f"unix:{Path(tmp_path) / 'absent'}", "--timeout", 5)
    assert done.status == 69
    assert "no answer" in done.err
