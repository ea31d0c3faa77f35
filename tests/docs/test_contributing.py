"""The examples of CONTRIBUTING.md work: their code is taken from the page, applied to the service's, and called."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from pydantic import create_model

import aligner_client
from aligner_client.api.v1.aligner_pb2 import AlignConfig, AlignRequest
from aligner_svc.config import Settings
from aligner_svc.config.engine import ENGINES, EngineSettings
from aligner_svc.config.security import METHODS, AuditSettings, AuthSettings
from aligner_svc.domain import Alignment, Word, WordStatus
from aligner_svc.engines.base import Capacity
from aligner_svc.errors import StartError
from tests import PROJECT
from tests.kit.chain_server import KindsHandler, chain_server, start
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

PAGE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MODULES = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
"""New modules by path."""
DIFFS = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
"""Added lines: path and hunks."""
REQUEST = AlignRequest(config=AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
BADGE = "b" * 32


def patched(path: str) -> str:
    """The file's source with the page's diffs applied."""
    source = "\n" + (PROJECT / path).read_text(encoding="utf-8")
    hunks = [hunk for where, diff in DIFFS if where == path for hunk in diff.split("@@\n")]
    assert hunks, f"CONTRIBUTING.md changes nothing in {path}"
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        before = "\n" + "".join(line[1:] for line in lines if line[0] != "+")
        assert source.count(before) == 1, f"{path} does not have these lines once:{before}"
        source = source.replace(before, "\n" + "".join(line[1:] for line in lines if line[0] != "-"))
    return source[1:]


class Checkout:
    """The service's modules, with those of the page in their place until the test is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def load(self, path: str) -> Any:
        """Install the page's new module `path`, or its changed version of the one that is there."""
        if path in MODULES:
            assert not (PROJECT / path).exists(), f"{path} is there already"
            return self._install(path, MODULES[path])
        return self._install(path, patched(path), import_module(_name(path)))

    def reload(self, path: str) -> Any:
        """Install a module again as it is, so that it imports what was changed."""
        return self._install(path, (PROJECT / path).read_text(encoding="utf-8"), import_module(_name(path)))

    def _install(self, path: str, code: str, original: ModuleType | None = None) -> Any:
        module = ModuleType(_name(path))
        if hasattr(original, "__path__"):
            module.__path__ = original.__path__
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, path, "exec"), vars(module))
        return module


def _name(path: str) -> str:
    return path.removeprefix("client/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(monkeypatch)


async def test_the_engine_serves_calls(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.load("aligner_svc/engines/even.py")
    for name, build in checkout.load("aligner_svc/config/engine.py").ENGINES.items() - ENGINES.items():
        monkeypatch.setitem(ENGINES, name, build)
    async with serving(engine_settings=EngineSettings(name="even")) as server, calling(server.address) as stub:
        answer = await stub.Align(REQUEST, timeout=60)
    assert answer.summary.engine == "even-1"
    assert [word.text for word in answer.words] == list(WORDS)
    assert (answer.words[0].start_ms, answer.words[-1].end_ms) == (0, answer.summary.audio_ms)


def test_the_setting_is_read_from_its_variable(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.load("aligner_svc/config/security.py")
    extended = checkout.reload("aligner_svc/config/settings.py").Settings
    monkeypatch.setenv("ALIGNER_AUTH__BADGE", BADGE)
    assert extended().auth.badge.get_secret_value() == BADGE
    monkeypatch.setenv("ALIGNER_AUTH__BADGE", "short")
    with pytest.raises(ValueError, match="at least 32"):
        extended()
    assert extended.model_fields["auth"].annotation.model_fields["badge"].description


async def test_the_authentication_method_lets_in_who_has_the_credential(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout.load("interceptors/auth/badge.py")
    build = checkout.load("aligner_svc/wiring/badge.py").build
    changed = checkout.load("aligner_svc/config/security.py")
    for name, builder in changed.METHODS.items() - METHODS.items():
        monkeypatch.setitem(METHODS, name, builder)
    fields = changed.AuthSettings.model_fields
    added = {name: (fields[name].annotation, fields[name]) for name in fields.keys() - AuthSettings.model_fields.keys()}
    auth = create_model("AuthSettings", __base__=AuthSettings, **added)(methods=("badge",), badge=BADGE)
    engine, audit = ScriptedEngine(), tmp_path / "audit"
    running = serving(profile="prod", engine=engine, auth=auth, audit=AuditSettings(file=audit))
    async with running as server, calling(server.address) as stub:
        answer = await stub.Align(REQUEST, metadata=[("x-badge", BADGE)], timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as rejected:
            await stub.Align(REQUEST, metadata=[("x-badge", "another")], timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.Align(REQUEST, timeout=60)
    assert answer.words
    assert [caller.client for caller in engine.callers] == ["badge:holder"]
    assert refusal(rejected.value).reason == "CREDENTIALS_INVALID"
    assert "x-badge" in refusal(missing.value).message
    assert "badge_unknown" in audit.read_text(encoding="utf-8")
    with pytest.raises(StartError, match="ALIGNER_AUTH__BADGE"):
        build(Settings(auth=auth.model_copy(update={"badge": None}), server={"profile": "prod"}))


async def test_the_guard_refuses_in_its_place_of_the_chain(checkout: Checkout) -> None:
    guard = checkout.load("interceptors/clients/interceptor.py").Clients
    chain = checkout.load("interceptors/__init__.py").chain
    guards = chain("test", max_metadata_entries=64, max_metadata_bytes=8192, clients=guard("grpc-node-js/0."))
    async with chain_server(guards, KindsHandler(), tls=False) as server:
        options = (("grpc.primary_user_agent", "grpc-node-js/0.9"), ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(server.target, options) as old:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await start(old, "UnaryUnary", timeout=60)
        assert await start(server.channel, "UnaryUnary", b"body", timeout=60) == b"body"
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(refused.value).reason == "CLIENT_REFUSED"


def test_the_guard_is_wired(checkout: Checkout) -> None:
    guard = checkout.load("interceptors/clients/interceptor.py").Clients
    checkout.load("interceptors/__init__.py")
    guards = checkout.load("aligner_svc/wiring/chain.py").Guards(Settings(), Capacity(1, 1))
    assert any(isinstance(one, guard) for one in guards.interceptors)


def test_the_output_format_is_rendered(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (Word("Good", 0.25, 0.5, 0.9, WordStatus.ALIGNED, 0, 4), Word("day", 0.5, 0.5, 0.0, WordStatus.NOT_FOUND, 5, 8))
    alignment = Alignment(words, 1.0, "scripted-1", "en", 1.0)
    expected = "0.250\t0.500\tGood\n"
    assert checkout.load("client/aligner_client/formats/tsv.py").render_tsv(alignment) == expected
    monkeypatch.setattr(aligner_client, "formats", checkout.load("client/aligner_client/formats/__init__.py"))
    chosen = checkout.load("aligner_svc/cli/alignment/request.py").OutputFormat("tsv")
    output = checkout.load("aligner_svc/cli/alignment/output.py")
    assert output.render(alignment, chosen, "Good day", "audio") == expected
    assert output.choose(None, Path("speech.tsv")) is chosen


def test_the_examples_pass_the_linter() -> None:
    ruff = Path(sys.executable).with_name("ruff")
    changed = {path: patched(path) for path, _ in DIFFS}
    for path, code in (MODULES | changed).items():
        # Without the order of imports, which depends on which modules exist.
        command = [ruff, "check", "--quiet", "--ignore", "I001", "--stdin-filename", PROJECT / path, "-"]
        checked = subprocess.run(command, input=code, capture_output=True, text=True, check=False, cwd=PROJECT)
        assert checked.returncode == 0, checked.stdout


def test_every_python_and_diff_block_is_one_of_these() -> None:
    assert len(re.findall(r"^```(?:python|diff)\n", PAGE, re.MULTILINE)) == len(MODULES) + len(DIFFS)
