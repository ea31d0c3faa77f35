"""Check the shape of the code: sizes of modules and packages, loose modules, class names. Exit status 1 and a list if not.

A module over MAX_LINES states why in a comment that begins with `# long:`.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES, MAX_MODULES = 300, 15
MAX_LOOSE = {"aligner_svc": 6, "interceptors": 9, "client/aligner_client": 15}
# Generated; and what mirrors the server's names on purpose.
GENERATED, MIRRORS = "client/aligner_client/api/", "client/aligner_client/"


def main() -> int:
    faults, classes = [], defaultdict(list)
    packages = defaultdict(list)
    for path in sorted(file for top in MAX_LOOSE for file in (ROOT / top).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if where.startswith(GENERATED):
            continue
        text = path.read_text(encoding="utf-8")
        packages[path.parent.relative_to(ROOT).as_posix()].append(where)
        if len(text.splitlines()) > MAX_LINES and "\n# long: " not in text:
            faults.append(f"{where} has more than {MAX_LINES} lines and no '# long: ' comment that says why")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not where.startswith(MIRRORS):
                classes[node.name].append(where)
    for package, modules in packages.items():
        allowed = MAX_LOOSE.get(package, MAX_MODULES)
        if len(modules) > allowed:
            faults.append(f"{package} has {len(modules)} modules; at most {allowed}")
    faults += [f"class {name} is in {' and '.join(places)}" for name, places in classes.items() if len(places) > 1]
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
