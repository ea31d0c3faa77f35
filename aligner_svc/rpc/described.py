"""What reflection tells of the API."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool


def described(*files: str) -> descriptor_pool.DescriptorPool:
    """A pool of the files of these names and all that they import, with the JSON name of each field ("charStart").

    protoc leaves those out of the stubs. Without them grpcurl 1.8 prints "char_start", and "charStart" with a descriptor set.
    """
    pool = descriptor_pool.DescriptorPool()
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
        pool.AddSerializedFile(copy.SerializeToString())

    for name in files:
        add(name)
    return pool


def _name_fields(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = field.json_name or first + "".join(part[:1].upper() + part[1:] for part in others)
    for nested in message.nested_type:
        _name_fields(nested)
