"""The client of aligner.v1: `Aligner` blocks, `AsyncAligner` is for asyncio. Both return an `Alignment`; times in seconds."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# gRPC's C++ core writes lines of its own to stderr, at its level "info", about what it also reports, such as a failed TLS
# handshake. It reads this variable once, when grpc is first imported, and so for the whole process: it cannot be set for a client
# alone. Errors are still written; a program that sets the variable, or imports grpc first, has what it asked for.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

if TYPE_CHECKING:
    from aligner_client.aio import AsyncAligner, AsyncWordStream
    from aligner_client.alignment import Alignment, Channel, Stretch, Timing, Warning, Word, WordStatus
    from aligner_client.auth.credentials import ApiKey, Auth, BearerToken, ClientCredentials, CredentialsError, Tls
    from aligner_client.blocking import Aligner, WordStream
    from aligner_client.errors import (
        AlignerClientError,
        CallCancelledError,
        DataLossError,
        DeadlineExceededError,
        FailedPreconditionError,
        Handshake,
        IncompleteAnswerError,
        InternalError,
        InvalidArgumentError,
        PermissionDeniedError,
        ResourceExhaustedError,
        TokenError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
    )
    from aligner_client.formats import CueLayout, Format
    from aligner_client.handshake import failed_handshake
    from aligner_client.messages import (
        AudioEncoding,
        LanguageSupport,
        Progress,
        ProgressCallback,
        ServerInfo,
        ServerLimits,
        Stage,
    )
    from aligner_client.retiming import Cue, CueStatus, Retiming, TranscriptFormat
    from aligner_client.retry import RetryPolicy
    from aligner_client.violation import FieldViolation

# Imported when first used: grpc takes 0.1 s and 20 MB, which a program that only renders or reads alignments must not pay.
_MODULES = {
    "aio": ("AsyncAligner", "AsyncWordStream"),
    "alignment": ("Alignment", "Channel", "Stretch", "Timing", "Warning", "Word", "WordStatus"),
    "auth.credentials": ("ApiKey", "Auth", "BearerToken", "ClientCredentials", "CredentialsError", "Tls"),
    "blocking": ("Aligner", "WordStream"),
    "errors": (
        "AlignerClientError",
        "CallCancelledError",
        "DataLossError",
        "DeadlineExceededError",
        "FailedPreconditionError",
        "Handshake",
        "IncompleteAnswerError",
        "InternalError",
        "InvalidArgumentError",
        "PermissionDeniedError",
        "ResourceExhaustedError",
        "TokenError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
    ),
    "formats": ("CueLayout", "Format"),
    "handshake": ("failed_handshake",),
    "messages": ("AudioEncoding", "LanguageSupport", "Progress", "ProgressCallback", "ServerInfo", "ServerLimits", "Stage"),
    "retiming": ("Cue", "CueStatus", "Retiming", "TranscriptFormat"),
    "retry": ("RetryPolicy",),
    "violation": ("FieldViolation",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Aligner",
    "AlignerClientError",
    "Alignment",
    "ApiKey",
    "AsyncAligner",
    "AsyncWordStream",
    "AudioEncoding",
    "Auth",
    "BearerToken",
    "CallCancelledError",
    "Channel",
    "ClientCredentials",
    "CredentialsError",
    "Cue",
    "CueLayout",
    "CueStatus",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "Format",
    "Handshake",
    "IncompleteAnswerError",
    "InternalError",
    "InvalidArgumentError",
    "LanguageSupport",
    "PermissionDeniedError",
    "Progress",
    "ProgressCallback",
    "ResourceExhaustedError",
    "Retiming",
    "RetryPolicy",
    "ServerInfo",
    "ServerLimits",
    "Stage",
    "Stretch",
    "Timing",
    "Tls",
    "TokenError",
    "TranscriptFormat",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Warning",
    "Word",
    "WordStatus",
    "WordStream",
    "failed_handshake",
]


def __getattr__(name: str) -> object:
    """A public name, from the module it is in (PEP 562)."""
    if name in _HOMES:
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
