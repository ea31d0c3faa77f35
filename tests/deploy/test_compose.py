"""deploy/compose.yaml is what Compose accepts, starts a server with the settings it means, and its parts find each other."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import compose_spec
import pytest
import yaml

from aligner_svc.config import Settings
from aligner_svc.config.report import unknown_variables
from tests import PROJECT
from tests.kit.prometheus_server import promtool

DEPLOY = PROJECT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SCRAPING = DEPLOY / "prometheus" / "prometheus.yaml"
OPERATORS = {"./certs"}
"""Mounted files that the operator provides."""
_UNITS = {"M": 1 << 20, "m": 60, "s": 1, "g": 1 << 30}


def faults(compose: dict[str, Any]) -> Iterator[str]:
    """What Compose would refuse, and names that lead nowhere."""
    try:
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose)).validate()
    except ValueError as error:
        yield str(error)
        return
    for name, service in compose["services"].items():
        yield from (f"{name} waits for {other}" for other in service.get("depends_on", ()) if other not in compose["services"])
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            there = (DEPLOY / source).exists() or source in OPERATORS if source.startswith(".") else source in compose["volumes"]
            if not there:
                yield f"{name} mounts {source}"


def amount(text: str) -> int:
    """Bytes or seconds of "512M" and "40s"."""
    return int(text[:-1]) * _UNITS[text[-1]]


@pytest.fixture
def settings(monkeypatch, tmp_path) -> Settings:
    """Those that the service gets, with the image's file below its variables."""
    monkeypatch.setenv("ALIGNER_CONFIG", str(DEPLOY / "container.toml"))
    for name, value in COMPOSE["services"]["aligner"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{[^}]*\}", "secret", value))
    assert unknown_variables(Settings) == []
    return Settings()


def test_compose_accepts_it_and_its_names_lead_somewhere() -> None:
    assert list(faults(COMPOSE)) == []


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a misspelled field": lambda service: service.update(read_olny=True),
    "a duration without a unit": lambda service: service.update(stop_grace_period="40 apples"),
    "a network that is not there": lambda service: service.update(networks=["nowhere"]),
    "a volume that is not there": lambda service: service["volumes"].append("nothing:/var/lib/nothing"),
    "a file that is not there": lambda service: service["volumes"].append("./nothing.toml:/etc/nothing.toml"),
    "a service that is not there": lambda service: service["depends_on"].update(kafka={"condition": "service_started"}),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_found(spoil: Callable[[dict[str, Any]], object]) -> None:
    compose = copy.deepcopy(COMPOSE)
    spoil(compose["services"]["aligner"])
    assert len(list(faults(compose))) == 1


def test_the_server_is_closed_and_asks_the_services_that_there_are(settings: Settings) -> None:
    assert settings.server.profile == "prod"
    assert settings.tls.certificate is not None
    assert settings.auth.methods == ("api_key",)
    assert settings.quota.redis is not None
    asked = [settings.keys.database.get_secret_value(), settings.quota.redis.get_secret_value(), settings.antivirus.address or ""]
    for url in asked:
        other = COMPOSE["services"][urlsplit(url).hostname]
        assert {*COMPOSE["services"]["aligner"]["networks"]} & {*other["networks"]}, url
        assert COMPOSE["services"]["aligner"]["depends_on"][urlsplit(url).hostname] == {"condition": "service_healthy"}
        assert "ports" not in other, "only the server and Prometheus, on loopback, are published"
    volume = next(mount.split(":")[1] for mount in COMPOSE["services"]["aligner"]["volumes"] if mount.startswith("state:"))
    assert str(settings.audit.file).startswith(volume)
    assert str(settings.keys.pepper_file).startswith(volume)


def test_its_limits_are_those_of_the_server(settings: Settings) -> None:
    service = COMPOSE["services"]["aligner"]
    assert amount(service["stop_grace_period"]) >= settings.server.drain_delay + 2 + settings.server.drain_grace + 3
    clamd = COMPOSE["services"]["clamd"]["environment"]
    for limit in ("StreamMaxLength", "MaxFileSize", "MaxScanSize"):
        assert amount(clamd[f"CLAMD_CONF_{limit}"]) >= settings.limits.stream_audio_bytes
    assert clamd["CLAMD_CONF_AlertExceedsMax"] == "yes"
    assert int(clamd["CLAMD_CONF_MaxScanTime"]) < settings.antivirus.scan_timeout * 1000


def test_its_health_check_is_the_images() -> None:
    image = (PROJECT / "Dockerfile").read_text()
    options, command = re.search(r"^HEALTHCHECK (.*) CMD (\[.*\])$", image, re.MULTILINE).groups()
    given = dict(option.removeprefix("--").replace("-", "_").split("=") for option in shlex.split(options))
    here = {name: str(value) for name, value in COMPOSE["services"]["aligner"]["healthcheck"].items()}
    assert here == given | {"test": str(["CMD", *json.loads(command)])}


def test_prometheus_scrapes_the_server_under_the_name_that_the_rules_need(settings: Settings) -> None:
    checked = promtool("check", "config", SCRAPING)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (job,) = yaml.safe_load(SCRAPING.read_text())["scrape_configs"]
    assert job["job_name"] == "aligner"
    port = (settings.metrics.listen or "").rpartition(":")[2]
    assert job["static_configs"] == [{"targets": [f"aligner:{port}"]}]
