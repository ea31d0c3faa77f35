"""The stubs. The same modules and not copies: a process can load a .proto only once."""

import sys

from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc

__all__ = ["aligner_pb2", "aligner_pb2_grpc"]

sys.modules |= {f"{__name__}.{module.__name__.rpartition('.')[2]}": module for module in (aligner_pb2, aligner_pb2_grpc)}
