"""Generate the Python stubs of protos/ into the client's api/. `--check` only compares.

The descriptors keep the files' own names ("aligner/v1/aligner.proto"), so that a caller
who generates stubs from protos/ can import them beside ours; only the import lines
inside them have to be pointed at our package.

They refuse to load with an older protobuf or grpcio than those that generated them. These checks are taken out: what the code
calls is in every version that client/pyproject.toml allows, and `make client-check` loads it with the oldest.

`--baseline FILE` writes what `buf breaking` compares with: the API without the rules in it. They are no
part of what it compares, and 190 kB with all that they are written in.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2, text_format
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "client" / "aligner_client" / "api"
SERVICE = "aligner/v1/aligner.proto"
RULES = "buf/validate/validate.proto"
FOLDERS = {"aligner/v1": API / "v1", "buf/validate": API / "buf" / "validate"}
"""Where the stubs of a folder of protos/ go."""

_CHECKS = (
    r"^from google\.protobuf import runtime_version .*\n",
    r"^_runtime_version\.ValidateProtobufRuntimeVersion\((?:.*\n)*?\)\n",
    r"^import warnings\n",
    r"^GRPC_GENERATED_VERSION(?:.*\n)*?    \)\n\n",
)
"""Of the versions."""

PLAIN = ROOT / "client" / "protos" / SERVICE
_RULES = (
    (r'^import "buf/validate/validate\.proto";\n\n', ""),
    (
        r"^// The options of buf\.validate are rules .*?never break one\.\n",
        "// The server checks requests by rules, which the proto of its source has.\n",
    ),
    (r"^ *option \(buf\.validate\.message\)\.cel = {.*?^  };\n", ""),
    (r"^ *option \(buf\.validate\.oneof\)[^\n]*;\n", ""),
    (r" \[\s*\(buf\.validate.*?\];", ";"),
)

_IMPORTS = {
    "from aligner.v1 import": "from aligner_client.api.v1 import",
    "import aligner.v1.aligner_pb2": "import aligner_client.api.v1.aligner_pb2",
    "aligner.v1.aligner_pb2.": "aligner_client.api.v1.aligner_pb2.",
    "from buf.validate import": "from aligner_client.api.rule_options import",
}


def _protoc(*arguments: str) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *arguments]) != 0:
        raise SystemExit("protoc failed")


def generate(out: Path) -> dict[Path, str]:
    """Run protoc into `out`; where each file belongs -> its text."""
    _protoc(f"--python_out={out}", f"--mypy_out=quiet:{out}", SERVICE, RULES)
    _protoc(f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", SERVICE)
    texts = {}
    for folder, target in FOLDERS.items():
        for path in sorted((out / folder).glob("*_pb2*")):
            text = path.read_text(encoding="utf-8")
            for theirs, ours in _IMPORTS.items():
                text = text.replace(theirs, ours)
            for check in _CHECKS:
                text = re.sub(check, "", text, flags=re.MULTILINE)
            texts[target / path.name] = text
    return texts | {PLAIN: plain()}


def plain() -> str:
    """The service's proto without its rules, for callers whose tools do not have buf/validate."""
    text = (ROOT / "protos" / SERVICE).read_text(encoding="utf-8")
    for rule, instead in _RULES:
        text = re.sub(rule, instead, text, flags=re.DOTALL | re.MULTILINE)
    return "// Written by `make protos`: protos/aligner/v1/aligner.proto without its rules.\n" + text


def baseline(out: Path) -> str:
    """The service's file as a FileDescriptorSet in text."""
    compiled = out / "service.binpb"
    _protoc(f"--descriptor_set_out={compiled}", SERVICE)
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    for file in files.file:
        kept = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(kept)
        for message in _messages(file.message_type):
            for part in (message, *message.field, *message.oneof_decl):
                is_map = isinstance(part, descriptor_pb2.DescriptorProto) and part.options.map_entry
                part.ClearField("options")
                if is_map:
                    part.options.map_entry = True
    return re.sub(r"^( *\w+) {$", r"\1: {", text_format.MessageToString(files), flags=re.MULTILINE)  # as buf writes it


def _messages(messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


def main() -> int:
    parser = argparse.ArgumentParser(description="the Python stubs of protos/")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--baseline", type=Path)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if wanted.baseline is not None:
            wanted.baseline.write_text(baseline(Path(scratch)), encoding="utf-8")
            return 0
        texts = generate(Path(scratch))
    if wanted.check:
        stale = [path.name for path, text in texts.items() if not path.is_file() or path.read_text("utf-8") != text]
        if stale:
            print(f"stale generated stubs: {', '.join(stale)}; run `make protos`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
