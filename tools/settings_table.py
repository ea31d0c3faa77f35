"""Write the table of docs/settings.md from aligner_svc/config/settings.py. `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from aligner_svc.config import Settings
from aligner_svc.config.limits import MIB

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
BEGIN = "<!-- settings: tools/settings_table.py writes this table -->\n"
END = "<!-- /settings -->\n"


def default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "by the cores"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, int) and not isinstance(value, bool) and value % MIB == 0 and value:
        return f"{value} ({value // MIB} MiB)"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def table() -> str:
    lines = ["| variable | default | what |", "|---|---|---|"]
    for section, outer in Settings.model_fields.items():
        model = outer.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, field in model.model_fields.items():
            lines.append(f"| `ALIGNER_{section}__{name}`".upper() + f" | {default_of(field)} | {field.description} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    fresh = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if "--check" in sys.argv[1:]:
        if fresh != text:
            print("docs/settings.md: the table is stale; run `make docs`", file=sys.stderr)
        return int(fresh != text)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
