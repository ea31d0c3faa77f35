"""`validate_pb2`: the options in which the rules of the proto are written.

A process that has its own `buf.validate` keeps it, because two versions of one .proto cannot be loaded into a process. Ours is not
installed under that name, which belongs to no distribution.
"""

from __future__ import annotations

from importlib import import_module

try:
    validate_pb2 = import_module("buf.validate.validate_pb2")
except ModuleNotFoundError:
    validate_pb2 = import_module("aligner_client.api.buf.validate.validate_pb2")
