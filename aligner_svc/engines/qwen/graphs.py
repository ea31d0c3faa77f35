"""Passes over small batches, recorded once for each bucket of sizes: a GPU then launches one graph instead of 500 operations.

A recording repeats what was launched, with the numbers that Python had then. So each is compared with the plain pass, for clips
of other lengths, before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import torch

from aligner_svc.engines.qwen.devices.feed import Feed, Input, PassSize
from aligner_svc.engines.qwen.devices.preparation import Prepared

log = logging.getLogger(__name__)

BUCKETS: Final = tuple(map(PassSize, (2, 4, 8, 12, 16, 24, 32)))
"""By seconds. From some 30 s on a pass takes a GPU longer than its launches."""
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Share of the largest state. A number baked into a recording changes states by more than their size."""

Pass: TypeAlias = Callable[[Input], torch.Tensor]
Record: TypeAlias = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]
"""Of work on tensors that stay where they are: what repeats it and returns its result, which is valid until the next call."""


class Graphs:
    """Repeats recorded passes. Not thread-safe."""

    def __init__(self, plain: Pass, feed: Feed, dtype: torch.dtype, record: Record) -> None:
        """`plain`: [timestamps, width] of a batch, padding included."""
        self._plain = plain
        self._feed = feed
        self._tolerance = _TOLERANCE[dtype]
        self._record = record
        self._recorded: dict[PassSize, tuple[Input, Callable[[], torch.Tensor]]] = {}

    def __call__(self, given: Input) -> torch.Tensor | None:
        """As `plain`; None: there is no recording for this batch."""
        if given.parts.bucket not in self._recorded:
            return None
        held, repeat = self._recorded[given.parts.bucket]
        held.chunks[: len(given.chunks)].copy_(given.chunks)  # what is left of the last batch after them is read by none
        held.whole.copy_(given.whole)
        return repeat()

    def add(self, clip: Callable[[float], Prepared], buckets: Iterable[PassSize] = BUCKETS) -> None:
        """Record a pass for each bucket; `clip` makes one of that many seconds. Ends at the first that fails or differs."""
        for bucket in buckets:
            try:
                first = self._feed([clip(float(bucket.chunks))], bucket)
                first.arrive()
                chunks = first.chunks.new_zeros((bucket.chunks, *first.chunks.shape[1:]))
                held = Input.of(first.parts, chunks.copy_(first.chunks), first.whole.clone())
                self._recorded[bucket] = held, self._record(lambda held=held: self._plain(held))  # type: ignore[misc]
                why = "" if self._same([clip(bucket.chunks - 0.5)], bucket) else "its answer differs"
                if bucket.chunks >= 4 and not why and not self._same([clip(bucket.chunks / 2 - 0.3)] * 2, bucket):
                    why = "its answer for two clips differs"
            except Exception as error:
                why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            if why:
                self._recorded.pop(bucket, None)
                log.warning("recorded passes are not used for %d s and more: %s", bucket.chunks, why)
                return
            self._feed.buckets.append(bucket)

    def _same(self, batch: Sequence[Prepared], bucket: PassSize) -> bool:
        plain, padded = self._feed(batch), self._feed(batch, bucket)
        for given in (plain, padded):
            given.arrive()
        wanted, got = self._plain(plain), self(padded)
        assert got is not None
        apart = (got[: len(wanted)] - wanted).abs().max() / wanted.abs().max()
        return bool(apart <= self._tolerance)  # not if it is NaN


class Cuda:
    """Record of a GPU; all recordings share their memory, as one runs at a time and its result is read before the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):  # libraries make their handles and choose their kernels: that cannot be recorded
            for _ in range(2):
                work()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            states = work()

        def repeat() -> torch.Tensor:
            graph.replay()
            return states

        return repeat
