"""A hook of mkdocs: pages link to files outside of docs/, as on GitHub; here they come along, below project/.

Pages of the project (README.md, CONTRIBUTING.md) become pages, other files are copied as they are, links to folders become text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "project/"
_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def origin(uri: str) -> str:
    """The path in the project of a file of the site."""
    return uri.removeprefix(PREFIX) if uri.startswith(PREFIX) else f"docs/{uri}"


def place(path: str) -> str:
    """The other way round."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{PREFIX}{path}"


def linked(uri: str, text: str) -> set[str]:
    """Paths in the project that a page links to."""
    folder = posixpath.dirname(origin(uri))
    return {posixpath.normpath(posixpath.join(folder, target)) for _, target, _ in _LINK.findall(_BLOCK.sub("", text))}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what the added pages link to."""
    todo = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while todo:
        for path in sorted(linked(*todo.pop())):
            source, uri = ROOT / path, place(path)
            if path.startswith(("docs/", "..")) or not source.is_file() or files.get_file_from_path(uri) is not None:
                continue
            files.append(File.generated(config, uri, abs_src_path=str(source), inclusion=InclusionLevel.NOT_IN_NAV))
            if path.endswith(".md"):
                todo.append((uri, source.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links at where their targets are in the site. One that leads nowhere stays, and mkdocs reports it."""
    here, uri = posixpath.dirname(page.file.src_uri), page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin(uri)), target))
        if (ROOT / path).is_dir():
            return label
        return f"[{label}]({posixpath.relpath(place(path), here or '.')}{anchor or ''})"

    # The label of a link may be code, so only blocks of code are kept out.
    parts = _BLOCK.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)
