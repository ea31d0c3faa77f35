"""Reported settings: secrets are hidden in values and in faults; every kind of value is valid TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from aligner_svc.cli.config import as_toml
from aligner_svc.config.report import SettingsProblem, load


class Keys(BaseModel):
    pepper: SecretStr = SecretStr("default secret")
    count: SecretStr | None = None
    peers: list[str] = ['a"b\\c\x7f', "é"]
    labels: dict[str, int] = {"a b": 1}
    folder: Path = Path("keys")
    strict: bool = True
    limit: float = float("inf")


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ALIGNER_", env_nested_delimiter="__", extra="forbid")
    keys: Keys = Keys()


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_secrets_are_never_shown(monkeypatch):
    monkeypatch.setenv("ALIGNER_KEYS__PEPPER", "hunter2")
    shown = as_toml(load(Example).rows())
    assert 'pepper = "**********"  # environment: ALIGNER_KEYS__PEPPER' in shown
    assert "hunter2" not in shown
    monkeypatch.setenv("ALIGNER_KEYS__STRICT", "hunter3")
    with pytest.raises(SettingsProblem) as raised:
        load(Example)
    assert "hunter" not in str(raised.value)


def test_every_kind_of_value_is_valid_toml():
    shown = as_toml(load(Example).rows())
    keys = tomllib.loads(shown)["keys"]
    assert keys["peers"] == ['a"b\\c\x7f', "é"]
    assert keys["labels"] == {"a b": 1}
    assert (keys["folder"], keys["strict"], keys["limit"]) == ("keys", True, float("inf"))
    assert "# count is not set" in shown
