"""The interface between the pipeline and an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from aligner_svc.domain import Caller, Clip, Phone, ProgressSink, Token, Warning, WordStatus
from aligner_svc.errors import StartError

if TYPE_CHECKING:
    from aligner_svc.config import Settings
    from aligner_svc.engines.batch_report import BatchWatch, QueueState
    from aligner_svc.engines.live import LiveAudio, LiveText
    from aligner_svc.workers.pool import WorkerPool


SHORT_SECONDS: Final = 60.0
"""A longer recording is a long one: it takes seconds of processor time, and short ones must not wait for it."""


class EngineStartError(StartError):
    """The engine cannot start; the message is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Span:
    """One token in time. Seconds from the first sample; confidence 0..1."""

    start: float
    end: float
    confidence: float
    status: WordStatus
    phones: tuple[Phone, ...] = ()
    """If they were asked for; they fill the span."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """`spans[i]` belongs to `tokens[i]`. `queued` and `busy` are seconds of waiting and of work."""

    spans: Sequence[Span]
    match_score: float
    warnings: Sequence[Warning] = ()
    queued: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls overload protection may let through to an engine."""

    lowest: int
    """Calls that keep it busy: the adaptive limit never goes below."""
    at_once: int
    """Calls it works on at a time, those of a batch that is being filled included."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine reports to metrics; the defaults fit one without a queue and without processes."""

    state: Callable[[], QueueState] | None = None
    slots: int = 1
    """Batches it runs at a time."""
    pools: Sequence[WorkerPool] = ()


class Tier(Enum):
    """How a language is aligned; the names are those of the API."""

    EXACT = "EXACT"
    """By a model of that language."""
    APPROXIMATE = "APPROXIMATE"
    """By a model of another one, and measured on real speech."""
    EXPERIMENTAL = "EXPERIMENTAL"
    """The same, not measured."""


@dataclass(frozen=True, slots=True)
class Support:
    """What is known of a language. `error_ms`: mean distance of edges from where a person marked them; 0: unknown."""

    tier: Tier
    error_ms: int = 0
    measured_on: str = ""


class Engine(Protocol):
    """An aligner. One instance serves every call of the process."""

    @property
    def name(self) -> str:
        """Engine and version, e.g. "pocketsphinx-5.1.1"."""

    @property
    def languages(self) -> frozenset[str]:
        """Primary language subtags it aligns."""

    @property
    def max_seconds(self) -> float | None:
        """Longest clip it takes, None: any."""

    @property
    def capacity(self) -> Capacity:
        """For overload protection."""

    @property
    def report(self) -> EngineReport:
        """For metrics."""

    async def start(self) -> None:
        """Load and warm up; the server reports ready only after it returns. Raises EngineStartError."""

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        """Cut a transcript, as it was sent, into the words this engine aligns; `language` is one of `languages`.

        Markup comes out as skipped words: text/transcript.py does it around the engine's own split.

        Raises InvalidArgumentError for a text longer than any clip it takes could hold.
        """

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        """Align one clip. `tokens` are those of `tokenise` that have something `spoken`, never none.

        Raises LimitExceededError when its queue is full, UnavailableError when it lost the same call
        twice, its device fails or the caller's deadline passes, and InvalidArgumentError for words
        that the clip cannot hold. Cancelling the task frees what it holds.
        """

    async def close(self) -> None:
        """Release processes and memory. Idempotent."""


class PhoneSet(NamedTuple):
    """The symbols that the sounds of a language have."""

    name: str
    """"ARPABET", "IPA"."""
    symbol: Callable[[str], str | None]
    """One as a caller writes it, with stress for example, as the engine does; None: it is none of the set."""


@runtime_checkable
class PhoneEngine(Engine, Protocol):
    """An engine that tells where the sounds of words are."""

    @property
    def phone_sets(self) -> Mapping[str, PhoneSet]:
        """By language, those for which it can."""

    async def align(
        self,
        clip: Clip,
        tokens: Sequence[Token],
        language: str,
        caller: Caller,
        progress: ProgressSink | None = None,
        *,
        phones: bool = False,
    ) -> EngineResult:
        """See Engine.align. `phones`: with those of the words that are ALIGNED; a language of `phone_sets`."""


OnSpans: TypeAlias = Callable[[Sequence[Span]], None]
"""Called on the event loop with the spans of the next tokens, once they cannot change any more. Must not block."""


@runtime_checkable
class RatedEngine(Engine, Protocol):
    """An engine that tells how well it aligns each language."""

    @property
    def support(self) -> Mapping[str, Support]:
        """By language, all of `languages`."""


@runtime_checkable
class LiveEngine(Engine, Protocol):
    """An engine that aligns a recording while it arrives."""

    async def follow(
        self,
        audio: LiveAudio,
        text: LiveText,
        language: str,
        caller: Caller,
        *,
        on_spans: OnSpans,
        progress: ProgressSink | None = None,
    ) -> EngineResult:
        """Align `audio` and `text` until both have ended; the result has no spans, each was handed to `on_spans` before.

        It holds nothing that is scarce while it waits for the speaker. Raises as `align`; LimitExceededError at the start only.
        """


OnFailed: TypeAlias = Callable[[str | None], None]
"""Called with the reason when the engine's device goes out of service, and with None when it is back."""
Build: TypeAlias = "Callable[[Settings, OnFailed, BatchWatch | None], Engine]"
"""What ENGINES in config/engine.py names: an engine from the settings. Raises EngineStartError."""
