"""Every page of docs/ is listed in an index, and every relative link in a Markdown file leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import PROJECT

DOCS = PROJECT / "docs"
_INSTALLED = {"node_modules", "build", "dist"}


def _pages() -> Iterator[Path]:
    """Every Markdown file of the project, without those of what is installed or built in it."""
    yield from PROJECT.glob("*.md")
    for folder in PROJECT.iterdir():
        if folder.is_dir() and (folder.name == ".github" or not folder.name.startswith(".")):
            yield from (page for page in folder.rglob("*.md") if _INSTALLED.isdisjoint(page.parts))


PAGES = sorted(_pages())


def text_of(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of the relative links on a page, outside of code; the text of a link may be code."""
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", text_of(page)))
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", [DOCS, DOCS / "adr"], ids=lambda folder: folder.name)
def test_the_index_links_every_page(folder: Path) -> None:
    index = folder / "README.md"
    listed = {(folder / target).resolve() for target in links(index)}
    assert {*folder.glob("*.md"), *folder.glob("*/README.md")} - {index} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), target


def test_settings_that_a_page_names_exist() -> None:
    examples = {"ALIGNER_LIMIT__AUDIO_SECONDS", "ALIGNER_AUTH__BADGE"}  # a mistake in doctor.md, an addition in CONTRIBUTING.md
    settings = set(re.findall(r"^\| `(ALIGNER_\w+)`", (DOCS / "settings.md").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"\bALIGNER_[A-Z]+__[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named <= settings | examples, page


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r"([\w/-]+\.md)$", (PROJECT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {page for page in listed if not page.startswith("project/")} == there
