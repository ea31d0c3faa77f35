"""Settings that let one caller take the service from the others are warned of, with what to change."""

from __future__ import annotations

import pytest

from aligner_svc.config import Settings
from aligner_svc.config.limits import StreamSettings
from aligner_svc.config.protection import QuotaSettings
from aligner_svc.doctor.shares import shares
from aligner_svc.health.findings import Severity


def found(tmp_path, limits: str = "calls_in_flight = 8", stream: StreamSettings | None = None) -> list[tuple[Severity, str]]:
    file = tmp_path / "quotas.toml"
    file.write_text(f"[classes.default]\n{limits}\n")
    settings = Settings(quota=QuotaSettings(file=file), stream=stream or StreamSettings())
    return [(finding.severity, finding.message) for finding in shares(settings)]


def test_callers_that_leave_room_are_fine(tmp_path) -> None:
    [(status, _)] = found(tmp_path)
    assert status is Severity.OK


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ("calls_in_flight = 58", "58 calls in flight"),
        ("calls_in_flight = 45\npriority = 'low'", "full for it at about 44"),
        ("requests_per_second = 5", "any number of calls"),
    ],
)
def test_a_class_with_as_many_calls_as_the_queue_takes(tmp_path, limits, text) -> None:
    [(status, message)] = found(tmp_path, limits)
    assert status is Severity.WARN
    assert text in message


@pytest.mark.parametrize(
    ("stream", "text"),
    [(StreamSettings(concurrent=1), "all others wait"), (StreamSettings(least_rate=0), "a byte every 60 s")],
)
def test_uploads_that_keep_the_memory_of_others(tmp_path, stream, text) -> None:
    [(status, message)] = found(tmp_path, stream=stream)
    assert status is Severity.WARN
    assert text in message


def test_the_built_in_class_takes_the_default_queue_and_is_told_so(monkeypatch) -> None:
    monkeypatch.setenv("ALIGNER_SERVER__PROFILE", "prod")
    monkeypatch.setenv("ALIGNER_AUTH__METHODS", "api_key")
    [finding] = shares(Settings())
    assert finding.severity is Severity.WARN
    assert "64 calls in flight" in finding.message
