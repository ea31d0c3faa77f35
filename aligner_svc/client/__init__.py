"""The client of aligner.v1: `Aligner` blocks, `AsyncAligner` is for asyncio. Both return `domain.Alignment`; times in seconds."""

from aligner_svc.client.aio import AsyncAligner, AsyncWordStream
from aligner_svc.client.blocking import Aligner, WordStream
from aligner_svc.client.credentials import ApiKey, Auth, BearerToken, ClientCredentials, CredentialsError, Tls
from aligner_svc.client.errors import (
    AlignerClientError,
    CallCancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
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
from aligner_svc.client.handshake import Handshake, failed_handshake
from aligner_svc.client.messages import AudioEncoding, Progress, ProgressCallback, ServerInfo, ServerLimits, Stage
from aligner_svc.client.retry import RetryPolicy

__all__ = [
    "Aligner",
    "AlignerClientError",
    "ApiKey",
    "AsyncAligner",
    "AsyncWordStream",
    "AudioEncoding",
    "Auth",
    "BearerToken",
    "CallCancelledError",
    "ClientCredentials",
    "CredentialsError",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "Handshake",
    "IncompleteAnswerError",
    "InternalError",
    "InvalidArgumentError",
    "PermissionDeniedError",
    "Progress",
    "ProgressCallback",
    "ResourceExhaustedError",
    "RetryPolicy",
    "ServerInfo",
    "ServerLimits",
    "Stage",
    "Tls",
    "TokenError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "WordStream",
    "failed_handshake",
]
