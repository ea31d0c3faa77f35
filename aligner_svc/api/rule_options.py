"""`validate_pb2`: the options in which the rules of the proto are written.

Whoever has a `buf.validate` of his own keeps it: two versions of one .proto cannot be loaded into a process.
Ours does not lie under that name, which is for nobody's distribution to take.
"""

from __future__ import annotations

from importlib import import_module

try:
    validate_pb2 = import_module("buf.validate.validate_pb2")
except ModuleNotFoundError:
    validate_pb2 = import_module("aligner_svc.api.buf.validate.validate_pb2")
