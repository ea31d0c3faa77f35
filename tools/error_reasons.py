"""Does docs/errors.md list every reason the code raises, and no other? Exit status 1 and a list if not."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("aligner_svc", "interceptors")
REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def raised_in(path: Path) -> Iterator[str]:
    """Reasons in the code.

    The first or second argument of every `SomethingError("REASON", ...)` or `..._refusal("REASON", ...)`, every
    `reason="REASON"`, and every `REASON = "REASON"`.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "REASON" for to in node.targets):
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield node.value.value
            continue
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        values = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        if name.endswith(("Error", "refusal", "refused")):
            values += node.args[:2]  # a guard names its status first
        for constant in (leaf for value in values for leaf in ast.walk(value)):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and REASON.fullmatch(constant.value):
                yield constant.value


def main() -> int:
    raised: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            raised.update(dict.fromkeys(raised_in(path), path.relative_to(ROOT).as_posix()))
    listed = set(re.findall(r"^\| `([A-Z0-9_]+)` \| `[A-Z_]+` \|", (ROOT / "docs/errors.md").read_text("utf-8"), re.MULTILINE))
    for reason in sorted(raised.keys() - listed):
        print(f"docs/errors.md lacks {reason}, raised in {raised[reason]}", file=sys.stderr)
    for reason in sorted(listed - raised.keys()):
        print(f"docs/errors.md lists {reason}, which nothing raises", file=sys.stderr)
    return int(raised.keys() != listed)


if __name__ == "__main__":
    raise SystemExit(main())
