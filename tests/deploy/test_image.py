"""The container's health check tells what the server says, and its build file fits the project. `make check-image` builds it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from aligner_svc.config import Settings
from aligner_svc.telemetry.metrics import Metrics
from aligner_svc.telemetry.metrics.server import MetricsServer
from tests import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text().replace("\\\n", " ")
LINES = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]


async def health(**environment: str) -> tuple[int, str]:
    """Exit status and output of the command in the image's HEALTHCHECK."""
    command = [sys.executable, "-IS", str(PROJECT / "deploy" / "healthcheck.py")]
    pipe = asyncio.subprocess.PIPE
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ALIGNER_")} | environment
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=variables)
    output, errors = await process.communicate()
    return process.returncode or 0, (output + errors).decode()


async def test_the_health_check_tells_what_the_server_says(tmp_path: Path) -> None:
    ready = True
    server = MetricsServer(Metrics({}), "0.0.0.0", 0, readiness=lambda: (ready, "the findings\n"))
    await server.start()
    try:
        assert await health(ALIGNER_METRICS__LISTEN=server.address) == (0, "the findings\n")
        settings = tmp_path / "own.toml"
        settings.write_text(f'[metrics]\nlisten = "{server.address}"\n')
        assert (await health(ALIGNER_CONFIG=str(settings)))[0] == 0
        ready = False
        assert await health(ALIGNER_METRICS__LISTEN=server.address) == (1, "the findings\n")
    finally:
        await server.close()
    assert (await health(ALIGNER_METRICS__LISTEN=server.address))[0] == 1


@pytest.mark.parametrize("listen", ["", "9464", "127.0.0.1:", "127.0.0.1:http"])
async def test_without_a_metrics_port_it_is_unhealthy_and_says_why(listen: str) -> None:
    status, said = await health(ALIGNER_METRICS__LISTEN=listen)
    assert status == 1
    assert "metrics.listen is not set" in said


def test_the_images_settings_are_settings_and_on_its_volume(monkeypatch) -> None:
    monkeypatch.setenv("ALIGNER_CONFIG", str(PROJECT / "deploy" / "container.toml"))
    settings = Settings()
    assert settings.metrics.listen == "127.0.0.1:9464"
    assert settings.keys.pepper_file.parent == Path("/var/lib/aligner")
    assert settings.keys.database.get_secret_value().endswith("/var/lib/aligner/keys.db")
    assert "VOLUME /var/lib/aligner" in LINES


def test_the_base_is_pinned_and_the_version_is_the_projects() -> None:
    arguments = dict(line.removeprefix("ARG ").split("=", 1) for line in LINES if line.startswith("ARG "))
    base = re.fullmatch(r"(python:3\.11\.\d+-slim-bookworm)@sha256:[0-9a-f]{64}", arguments["BASE"])
    assert base
    assert f'org.opencontainers.image.base.name="docker.io/library/{base[1]}"' in DOCKERFILE
    assert arguments["VERSION"] == tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert {line.split()[1] for line in LINES if line.startswith("FROM ")} - {"build", "service", "code"} == {"${BASE}"}


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sent = {line[1:].rstrip("/") for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for line in LINES
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    }
    assert copied == sent
    assert all((PROJECT / source).exists() for source in copied)
