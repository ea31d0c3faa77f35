"""Generate the Python stubs of protos/ into aligner_svc/api/. `--check` only compares.

The descriptor keeps the file's own name ("aligner/v1/aligner.proto"), so that a caller
who generates stubs from protos/ can import them beside ours; only the import line
inside *_pb2_grpc has to be pointed at our package.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "aligner/v1/aligner.proto"
TARGET = ROOT / "aligner_svc" / "api" / "v1"


def generate(out: Path) -> dict[str, str]:
    """Run protoc into `out`; file name -> text."""
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    arguments += [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}", SOURCE]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    texts = {}
    for path in sorted((out / "aligner" / "v1").glob("aligner_pb2*")):
        text = path.read_text(encoding="utf-8")
        text = text.replace("from aligner.v1 import aligner_pb2", "from aligner_svc.api.v1 import aligner_pb2")
        text = text.replace("from aligner.v1 import", "from aligner_svc.api.v1 import")
        texts[path.name] = text.replace("import aligner.v1.aligner_pb2", "import aligner_svc.api.v1.aligner_pb2").replace(
            "aligner.v1.aligner_pb2.", "aligner_svc.api.v1.aligner_pb2."
        )
    return texts


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        texts = generate(Path(scratch))
    if "--check" in sys.argv[1:]:
        stale = [
            name for name, text in texts.items() if not (TARGET / name).is_file() or (TARGET / name).read_text("utf-8") != text
        ]
        if stale:
            print(f"stale generated stubs: {', '.join(stale)}; run `make protos`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in texts.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
