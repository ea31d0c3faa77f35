"""`aligner cluster` where there is none: what it refuses, and what it never ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner_svc.cli import app


def aligner(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_without_credentials_a_cluster_is_not_asked():
    result = aligner("cluster", "status")
    assert result.exit_code == 1
    assert "no token and no TLS" in result.stderr


def test_up_makes_clusters_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALIGNER_RAY__ADDRESS", "192.0.2.1:6379")
    result = aligner("cluster", "up")
    assert result.exit_code == 1
    assert "192.0.2.1" in result.stderr


def test_down_ends_no_other_process_that_has_the_id_of_an_old_head():
    with subprocess.Popen(["sleep", "60"]) as other:
        Path("aligner-ray").mkdir()
        Path("aligner-ray/cluster.json").write_text(json.dumps({"pid": other.pid, "started": 1}))
        result = aligner("cluster", "down")
        assert result.exit_code == 1
        assert "no cluster" in result.stderr
        assert other.poll() is None
        other.kill()


def test_the_token_and_the_keys_are_their_owners_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALIGNER_RAY__ADDRESS", "192.0.2.1:6379")
    aligner("cluster", "up")
    secret = {path.name for path in Path("aligner-ray").iterdir() if path.stat().st_mode & 0o077 == 0}
    assert secret == {"token", "ca.key", "node.key"}
    assert Path("aligner-ray").stat().st_mode & 0o777 == 0o700
