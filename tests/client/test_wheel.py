"""The client's wheel, in an environment that has what it declares and nothing else, calls a server.

By default in this Python, with the packages that are installed. `make client-check` does it in other Pythons, with the oldest
packages that the client allows and with the newest.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import PROJECT
from tests.kit.recordings import SAMPLE
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving

TRANSCRIPT = "Good day, all."
PYTHONS = os.environ.get("CLIENT_PYTHONS", "").split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT / "client"))
    (built,) = folder.iterdir()
    return built


def pip(*arguments: str) -> None:
    run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def run(command: list[str]) -> None:
    """Without PYTHONPATH, which would show this checkout to it."""
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""}, timeout=110)


def declared(name: str = "aligner-client", extra: str = "") -> set[str]:
    """The distributions that one needs, and those that they need."""
    found: set[str] = set()
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        if wanted.name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": extra})):
            found |= {wanted.name} | declared(wanted.name, next(iter(wanted.extras), ""))
    return found


def linked(folder: Path, wheel: Path) -> Path:
    """The Python of a new environment: the wheel, and links to the packages that it declares, as they are installed here."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    for name in declared():
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                (packages / file).symlink_to(Path(str(file.locate())).resolve())
    return folder / "bin" / "python"


def installed(folder: Path, python: str, wheel: Path, *, oldest: bool) -> Path:
    """The same with another Python, and packages from the index."""
    run([python, "-m", "venv", "--without-pip", str(folder)])
    made = folder / "bin" / "python"
    wanted = [Requirement(line) for line in distribution("aligner-client").requires or () if "extra" not in line]
    floors = [f"{one.name}=={spec.version}" for one in wanted for spec in one.specifier if spec.operator == ">="]
    pip("--python", str(made), "install", str(wheel), *(floors if oldest else []))
    return made


def test_the_wheel_is_small_and_typed(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"aligner_client/py.typed", "aligner_client/service_config.json", "aligner_client/api/v1/aligner_pb2.pyi"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"aligner_client"}
    assert wheel.stat().st_size < 300_000


@pytest.mark.parametrize(("python", "oldest"), [("", False), *((one, oldest) for one in PYTHONS for oldest in (True, False))])
async def test_a_bare_environment_calls_a_server(wheel: Path, tmp_path: Path, python: str, oldest: bool) -> None:
    made = installed(tmp_path / "venv", python, wheel, oldest=oldest) if python else linked(tmp_path / "venv", wheel)
    async with serving(engine=ScriptedEngine()) as server:
        command = [made, "-I", PROJECT / "tests/client/bare_calls.py", server.address, SAMPLE, TRANSCRIPT]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["words"] == answer["streamed"] == ["Good", "day", "all"]
    assert answer["srt"].endswith("Good day, all.\n")
    assert (answer["refused"]["reason"], answer["refused"]["fields"]) == ("LANGUAGE_INVALID", ["config.language"])
    assert answer["refused"]["request_id"]
    assert (answer["closed"], answer["server"]) == ("CANCELLED", [])
