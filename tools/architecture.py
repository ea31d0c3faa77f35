"""Draw the rooms of the code and the imports between them into docs/architecture.md. `--check` only compares.

An arrow that follows from others is left out: where a imports b and b imports c, a's own import of c is not drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import grimp

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
BEGIN = "<!-- rooms: tools/architecture.py draws this -->\n"
END = "<!-- /rooms -->\n"
LOOSE = "interceptors.(single-module guards)"
CALLS = "aligner_client.(the calls)"
TOPS = ("aligner_svc", "aligner_client", "interceptors")


def room(module: str) -> str:
    """The package below the top one; the single-module guards are one room, the chain itself another."""
    top, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if top == "interceptors" and not (PAGE.parents[1] / top / name).is_dir():
        return LOOSE if name and name != "background" else f"{top}.{name or 'chain'}"
    if top == "aligner_client" and name and not (PAGE.parents[1] / "client" / top / name).is_dir():
        return f"{top}.{name}" if name in {"alignment", "errors", "violation"} else CALLS
    return f"{top}.{name}" if name else top


def imports() -> Mapping[str, set[str]]:
    """Rooms by the rooms they import."""
    graph = grimp.build_graph(*TOPS, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        here = room(module)
        others = {room(other) for other in graph.find_modules_directly_imported_by(module)}
        found.setdefault(here, set()).update(others - {here, "aligner_svc", "aligner_client"})
    return {name: others for name, others in found.items() if name not in {"aligner_svc", "aligner_client"}}


def reaches(found: Mapping[str, set[str]], start: str, goal: str) -> bool:
    """Whether `start` imports `goal` through another room."""
    seen, waiting = set(), list(found[start] - {goal})
    while waiting:
        at = waiting.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            waiting += found[at]
    return False


def picture() -> str:
    found = imports()
    names = {name: name.replace(".", "_").translate(str.maketrans("", "", "()- ")) for name in found}
    lines = ["```mermaid", "graph TD"]
    for top in TOPS:
        lines.append(f"  subgraph {top}")
        lines += [f'    {names[one]}["{one.partition(".")[2]}"]' for one in sorted(found) if one.startswith(f"{top}.")]
        lines.append("  end")
    for here in sorted(found):
        lines += [f"  {names[here]} --> {names[to]}" for to in sorted(found[here]) if not reaches(found, here, to)]
    return "\n".join([*lines, "```", ""])


def main() -> int:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page = before + BEGIN + picture() + END + after
    if page == PAGE.read_text(encoding="utf-8"):
        return 0
    if "--check" in sys.argv:
        print("docs/architecture.md: the picture of the rooms is not that of the imports: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
