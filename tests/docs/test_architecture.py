"""docs/architecture.md says what the code says: its rooms, the order of the chain, and where each behaviour is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import get_type_hints

import pytest

import interceptors
from tests import PROJECT

PAGE = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
BEHAVIOURS = [row.split(" | ") for row in re.findall(r"^\| (.+ \| \d) \|$", PAGE, re.MULTILINE)]


def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Every name that a module or class binds, those of a class as CLASS.NAME."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from names(node.body, f"{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(name)):
                yield prefix + name


def rooms(top: str) -> set[str]:
    """Packages and single modules, without `__init__` and what is not code."""
    found = (PROJECT / top).iterdir()
    return {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}


@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: row[0])
def test_a_behaviour_is_where_the_page_says(row: list[str]) -> None:
    _, search, code, files = row
    paths = re.findall(r"`(\S+\.py)`: ((?:`[\w.]+`(?:, )?)+)", code)
    assert len(paths) == int(files) <= 2
    for path, named in paths:
        known = set(names(ast.parse((PROJECT / path).read_text(encoding="utf-8")).body))
        assert set(re.findall(r"`([\w.]+)`", named)) <= known, path
    assert search.strip("`") in (PROJECT / paths[0][0]).read_text(encoding="utf-8")


def test_the_page_has_these_behaviours() -> None:
    assert len(BEHAVIOURS) == 18


@pytest.mark.parametrize("top", ["aligner_svc", "interceptors"])
def test_the_page_lists_every_room(top: str) -> None:
    section = PAGE.partition(f"### {top}")[2].partition("\n\n#")[0].partition("Drawn from")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    listed = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert listed | {"__init__"} == rooms(top)


def test_the_page_has_the_chain_in_its_order() -> None:
    section = PAGE.partition("## The path of a call")[2].partition("\nThen ")[0]
    listed = [name for line in re.findall(r"^\d+\. (.*?):", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)]
    hints = get_type_hints(interceptors.chain, vars(interceptors) | {"RpcMetrics": _RpcMetrics})
    tree = ast.parse((PROJECT / "interceptors" / "__init__.py").read_text(encoding="utf-8"))
    guards = next(node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple))
    assert listed == [_class(element, hints) for element in guards.elts]


class _RpcMetrics:
    """In place of the one that needs prometheus_client."""


def _class(element: ast.expr, hints: dict[str, object]) -> str:
    """The class of one element of the chain's tuple: a call, a parameter, or either of them if something is not None."""
    match element:
        case ast.IfExp():
            return _class(element.body, hints)
        case ast.Call(func=ast.Name(name)):
            return name
        case ast.Attribute():
            return "MessageCounter"
        case ast.Name(name):
            return next(hint.__name__.lstrip("_") for hint in hints[name].__args__ if hint is not type(None))
    raise AssertionError(ast.unparse(element))
