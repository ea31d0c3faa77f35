"""Every block of commands in README.md and docs/ runs as it is printed, or says above itself why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import PROJECT
from tests.docs.blocks import blocks, pages, run_page

PAGES = pages()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if not all(block.why_not for block in blocks(page))])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    ran = run_page(page, tmp_path)
    last, printed = ran.printed[-1]
    assert ran.status == 0, f"{page}, line {last.line}:\n{last.commands}\nprinted:\n{printed[-3000:]}"


def test_blocks_that_do_not_run_say_why() -> None:
    marked = {f"{page}:{block.line}": block.why_not for page in PAGES for block in blocks(page) if block.why_not}
    print("\n".join(f"{where} is not run: {why}" for where, why in marked.items()))
    assert all(len(why) > 10 for why in marked.values()), marked


@pytest.mark.parametrize(
    ("page", "section", "most"),
    [("README.md", "# aligner-svc", 3), ("docs/security.md", "## From a clone to a call with TLS and an API key", 8)],
)
def test_the_first_call_takes_few_commands(page: str, section: str, most: int) -> None:
    """From a clone, all of them in one section of one page."""
    found = [block for block in blocks(page) if block.section == section]
    assert any("git clone" in block.commands for block in found)
    assert sum(len(block.logical_lines) for block in found) <= most


def test_a_prompt_is_in_a_block_of_its_kind() -> None:
    """`$ command` in a fence without a language would never run."""
    for page in PAGES:
        fences = re.findall(r"^```(\w*)\n(.*?)^```$", (PROJECT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert not [text for language, text in fences if language != "console" and re.search(r"^\$ ", text, re.MULTILINE)], page
