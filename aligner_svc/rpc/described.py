"""What the API is, for callers that have no proto file: reflection, and the descriptor set in protos/."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet


def descriptor_set(*names: str) -> FileDescriptorSet:
    """The files of these names after all that they import, with the JSON name of each field ("charStart").

    protoc leaves those out of the stubs. Without them grpcurl 1.8 prints "char_start".
    """
    files = FileDescriptorSet()
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        file = descriptor_pool.Default().FindFileByName(name)
        for imported in file.dependencies:
            add(imported.name)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        for message in copy.message_type:
            _name_fields(message)
        files.file.append(copy)

    for name in names:
        add(name)
    return files


def pool_of(files: FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    """A pool with nothing else in it."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _name_fields(message: DescriptorProto) -> None:
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = field.json_name or first + "".join(part[:1].upper() + part[1:] for part in others)
    for nested in message.nested_type:
        _name_fields(nested)
