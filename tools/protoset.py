"""Write protos/aligner.protoset: the API and gRPC's health service for `grpcurl -protoset`. `--check` only compares.

A server of the prod profile answers reflection for administrators only. The rules of the fields are left out, which callers
need not know, and so are the files that they are written in (95 % of the bytes).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from aligner_svc.rpc.services import API

FILE = Path(__file__).resolve().parent.parent / "protos" / "aligner.protoset"
RULES = "buf/validate/validate.proto"


def without_rules(api: FileDescriptorSet) -> FileDescriptorSet:
    """What is needed to make and read messages: no options, and no file that only they need."""
    files = FileDescriptorSet()
    for file in api.file:
        if file.name != RULES:
            copy = files.file.add()
            copy.CopyFrom(file)
            copy.ClearField("options")
            del copy.dependency[:]
            copy.dependency.extend(name for name in file.dependency if name != RULES)
            _clear(copy.message_type)
    imported = {name for file in files.file for name in file.dependency}
    needed = [file for file in files.file if file.name in imported or not file.name.startswith("google/protobuf/")]
    return FileDescriptorSet(file=needed)


def _clear(messages: Iterable[DescriptorProto]) -> None:
    for message in messages:
        # The entries of a map are known by an option.
        for part in (*([] if message.options.map_entry else [message]), *message.field, *message.oneof_decl):
            part.ClearField("options")
        _clear(message.nested_type)


def main() -> int:
    fresh = without_rules(API)
    if "--check" in sys.argv[1:]:
        same = FILE.is_file() and FileDescriptorSet.FromString(FILE.read_bytes()) == fresh
        if not same:
            print("stale protos/aligner.protoset; run `make protos`", file=sys.stderr)
        return int(not same)
    FILE.write_bytes(fresh.SerializeToString(deterministic=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
