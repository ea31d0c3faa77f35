"""No process joins a cluster that is open to whoever reaches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.ray_serve.credentials import environment, make_token

HERE = "127.0.0.1:6379"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_token(tmp_path / "made")
    for name in ("ca.pem", "node.pem", "node.key"):
        (tmp_path / "made" / name).touch()
    return tmp_path / "made"


def test_token_and_tls_are_on(directory: Path) -> None:
    found = environment(directory, HERE, {"HOME": "/x", "RAY_LOG_TO_STDERR": "1"})
    assert (found["RAY_AUTH_MODE"], found["RAY_USE_TLS"], found["RAY_LOG_TO_STDERR"]) == ("token", "1", "1")
    assert "HOME" not in found


def test_the_token_is_its_owners_alone_and_kept(directory: Path) -> None:
    token = directory / "token"
    before = token.read_text()
    assert (token.stat().st_mode & 0o777, len(before)) == (0o600, 64)
    make_token(directory)
    assert token.read_text() == before


@pytest.mark.parametrize(
    ("gone", "given", "said"),
    [
        ("token", {}, "no token"),
        ("node.key", {}, "no TLS"),
        ("", {"RAY_AUTH_MODE": "disabled"}, "no token"),
        ("", {"RAY_USE_TLS": "0"}, "no TLS"),
    ],
)
def test_an_open_cluster_is_refused(directory: Path, gone: str, given: dict[str, str], said: str) -> None:
    if gone:
        (directory / gone).unlink()
    with pytest.raises(EngineStartError, match=said):
        environment(directory, HERE, given)


def test_a_token_that_others_can_read_is_refused(directory: Path) -> None:
    (directory / "token").chmod(0o640)
    with pytest.raises(EngineStartError, match="chmod 600"):
        environment(directory, HERE, {})


def test_what_an_operator_of_kubernetes_sets_is_enough(tmp_path: Path) -> None:
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret", "RAY_USE_TLS": "1"}
    assert environment(tmp_path, "head:6379", given).items() >= given.items()
