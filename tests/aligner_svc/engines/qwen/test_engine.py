"""Every call to the engine ends with its own answer or a clear error, whatever else happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip
from aligner_svc.engines.base import EngineResult, EngineStartError
from aligner_svc.engines.qwen import checkpoint, device
from aligner_svc.engines.qwen.device import PREPARERS, is_allocation_failure, resolve_device, resolve_dtype
from aligner_svc.engines.qwen.devices.feed import Input
from aligner_svc.engines.qwen.devices.preparation import Preparation
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.errors import AlignerError, InvalidArgumentError, LimitExceededError, UnavailableError
from aligner_svc.text.model_words import LANGUAGES
from tests.kit import qwen_material
from tests.kit.qwen_local import LocalDevices
from tests.kit.qwen_material import Pair
from tests.kit.qwen_reference import Reference, Timed
from tests.kit.waiting import WAIT_TIMEOUT, eventually, loop_turns

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return qwen_material.pairs(0, qwen_material.log_uniform(0, 20, 0.5, 12))


@pytest.fixture(scope="module")
def solo(tiny_checkpoint: Path, pairs: list[Pair]) -> list[list[Timed]]:
    """The reference's answers, cut off at the end of the audio."""
    reference = Reference(tiny_checkpoint)
    answers = []
    for pair in pairs:
        seconds = len(pair.samples) / SAMPLE_RATE
        timed = reference.solo(*pair)
        answers.append([Timed(word.text, min(word.start, seconds), min(word.end, seconds)) for word in timed])
    return answers


@pytest.fixture(scope="module")
def prepare(tiny_checkpoint: Path) -> Preparation:
    return Preparation(checkpoint.load(str(tiny_checkpoint), torch.device("cpu"), torch.float32), torch.float32)


def build(
    tiny_checkpoint: Path, *, queue: int = 64, on_failed: Callable[[str | None], None] | None = None, **settings: Any
) -> QwenEngine:
    qwen = QwenSettings(model=str(tiny_checkpoint), device="cpu", dtype="fp32", **settings)
    engine = QwenEngine(EngineSettings(workers=1, queue=queue), qwen, on_failed, devices=LocalDevices(qwen))
    engine.batcher.device.recheck_seconds = (0.02, 0.05)
    return engine


@asynccontextmanager
async def running(tiny_checkpoint: Path, **settings: Any) -> AsyncIterator[QwenEngine]:
    engine = build(tiny_checkpoint, **settings)
    async with asyncio.timeout(WAIT_TIMEOUT):
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()


async def ask(engine: QwenEngine, pair: Pair, caller: Caller | None = None) -> EngineResult:
    tokens = await engine.tokenise(pair.text, pair.language)
    return await engine.align(Clip(pair.samples), tokens, pair.language, caller or Caller())


async def timed(engine: QwenEngine, pair: Pair, caller: Caller | None = None) -> list[Timed]:
    tokens = await engine.tokenise(pair.text, pair.language)
    result = await engine.align(Clip(pair.samples), tokens, pair.language, caller or Caller())
    return [Timed(token.spoken[0], span.start, span.end) for token, span in zip(tokens, result.spans, strict=True)]


class Gate:
    """While it is closed, the model's thread waits here before each batch. `batches`: their sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self._plain = PackedAligner.answer

        def forward(model: PackedAligner, given: Input) -> list[TimestampSlots]:
            return self._wait(model, given)

        monkeypatch.setattr(PackedAligner, "answer", forward)
        self._open.set()

    def close(self) -> None:
        self._open.clear()
        self.entered.clear()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, WAIT_TIMEOUT)

    def _wait(self, model: PackedAligner, given: Input) -> list[TimestampSlots]:
        self.batches.append(len(given.counts))
        self.entered.set()
        assert self._open.wait(WAIT_TIMEOUT)
        return self._plain(model, given)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


def check_first(monkeypatch: pytest.MonkeyPatch, check: Callable[[Input], None]) -> list[int]:
    """Call `check`, which may raise, before every batch. Returns the sizes (rows) of the batches that passed."""
    plain = PackedAligner.answer
    passed: list[int] = []

    def forward(model: PackedAligner, given: Input) -> list[TimestampSlots]:
        check(given)
        passed.append(len(given.ids))
        return plain(model, given)

    monkeypatch.setattr(PackedAligner, "answer", forward)
    return passed


async def hold_and_queue(
    engine: QwenEngine, pairs: Sequence[Pair], gate: Gate
) -> tuple[asyncio.Task[list[Timed]], list[asyncio.Task[list[Timed]]]]:
    """Start a call that the closed gate holds on the device, and queue the others."""
    first = asyncio.create_task(timed(engine, pairs[0]))
    await gate.reached()
    others = [asyncio.create_task(timed(engine, pair)) for pair in pairs[1:]]
    await eventually(lambda: engine.batcher.state().waiting == len(others))
    return first, others


# Answers


async def test_concurrent_calls_get_the_answers_of_the_reference(
    tiny_checkpoint: Path, pairs: list[Pair], solo: list[list[Timed]]
) -> None:
    """Twenty calls of four clients at once; the queue makes batches of them."""
    async with running(tiny_checkpoint) as engine:
        calls = [timed(engine, pair, Caller(f"client {place % 4}")) for place, pair in enumerate(pairs)]
        assert await asyncio.gather(*calls) == solo
        assert engine.batcher.state().waiting == 0
        assert await timed(engine, pairs[0]) == solo[0]


async def test_waiting_calls_share_a_batch(tiny_checkpoint: Path, pairs: list[Pair], solo: list[list[Timed]], gate: Gate) -> None:
    async with running(tiny_checkpoint, batch_tokens=100_000) as engine:
        gate.close()
        gate.batches.clear()
        first, others = await hold_and_queue(engine, pairs, gate)
        gate.open()
        assert await asyncio.gather(first, *others) == solo
        assert gate.batches == [1, len(others)]


async def test_what_else_is_reported(tiny_checkpoint: Path, pairs: list[Pair]) -> None:
    async with running(tiny_checkpoint) as engine:
        result = await ask(engine, pairs[0])
        assert result.busy > 0
        assert result.queued >= 0
        assert 0 < result.match_score <= 1
        assert engine.name.startswith("qwen3-forced-aligner-")
        assert engine.languages == LANGUAGES
        assert engine.max_seconds is None


def test_concurrent_preparations_do_not_affect_each_other(prepare: Preparation, pairs: list[Pair]) -> None:
    """Two threads share one tokenizer, which changes its state when it is used."""
    clips = [pair.samples[:SAMPLE_RATE] for pair in pairs] * 5
    words = [["мягких", "敏捷", f"word{place}"] * 40 for place in range(len(pairs))] * 5
    with device.thread_pool(PREPARERS, "test", cores=1) as threads:
        for one, other in zip(map(prepare, clips, words), threads.map(prepare, clips, words), strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert torch.equal(one.chunks, other.chunks)


# Refusals


async def test_too_many_words_for_the_audio_are_refused(tiny_checkpoint: Path) -> None:
    async with running(tiny_checkpoint) as engine:
        tokens = await engine.tokenise("a " * 21, "en")
        with pytest.raises(InvalidArgumentError) as caught:
            await engine.align(Clip(np.zeros(SAMPLE_RATE, np.int16)), tokens, "en", Caller())
        assert caught.value.reason == "TRANSCRIPT_TOO_DENSE"


async def test_a_japanese_transcript_that_would_take_too_much_memory_is_refused(tiny_checkpoint: Path) -> None:
    engine = build(tiny_checkpoint)
    with pytest.raises(InvalidArgumentError, match="6001 characters") as caught:
        await engine.tokenise("の" * 6_001, "ja")
    assert caught.value.reason == "TRANSCRIPT_TOO_LONG"
    await engine.close()


async def test_a_call_over_the_queue_bound_is_refused(
    tiny_checkpoint: Path, pairs: list[Pair], solo: list[list[Timed]], gate: Gate
) -> None:
    async with running(tiny_checkpoint, queue=2, batch_items=1) as engine:
        gate.close()
        calls = [asyncio.create_task(timed(engine, pair)) for pair in pairs[:3]]
        await gate.reached()
        await eventually(lambda: engine.batcher.state().waiting == 2)
        with pytest.raises(LimitExceededError) as caught:
            await ask(engine, pairs[3])
        assert caught.value.reason == "ENGINE_QUEUE_FULL"
        assert caught.value.retry_after
        gate.open()
        assert await asyncio.gather(*calls) == solo[:3]
        assert await timed(engine, pairs[3]) == solo[3]


async def test_a_cancelled_call_frees_its_place(tiny_checkpoint: Path, pairs: list[Pair], gate: Gate) -> None:
    async with running(tiny_checkpoint, queue=1, batch_items=1) as engine:
        gate.close()
        held = [asyncio.create_task(ask(engine, pair)) for pair in pairs[:2]]
        await gate.reached()
        await eventually(lambda: engine.batcher.state().waiting == 1)
        for call in held:
            call.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*held, return_exceptions=True))
        gate.open()
        assert (await ask(engine, pairs[2])).spans


async def test_an_expired_deadline_ends_the_call(tiny_checkpoint: Path, pairs: list[Pair], gate: Gate) -> None:
    async with running(tiny_checkpoint) as engine:
        gate.close()
        caller = Caller(deadline=asyncio.get_running_loop().time() + 0.2)
        with pytest.raises(UnavailableError) as caught:
            await ask(engine, pairs[0], caller)
        assert caught.value.reason == "DEADLINE_EXPIRED"
        gate.open()
        assert (await ask(engine, pairs[0])).spans


# Memory


no_memory = pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)


@no_memory
async def test_a_batch_that_does_not_fit_is_tried_in_parts(
    error: Exception,
    tiny_checkpoint: Path,
    prepare: Preparation,
    pairs: list[Pair],
    solo: list[list[Timed]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(tiny_checkpoint, batch_tokens=100_000) as engine:
        rows = [prepare(pair.samples, [word.text for word in words]).rows for pair, words in zip(pairs, solo, strict=True)]
        fits, refused = max(rows), []

        def memory(given: Input) -> None:
            if len(given.ids) > fits:
                refused.append(len(given.counts))
                raise error

        passed = check_first(monkeypatch, memory)
        assert await asyncio.gather(*(timed(engine, pair) for pair in pairs)) == solo
        assert refused
        assert max(passed) <= fits
        assert engine.batcher.state().failed is None


@no_memory
async def test_a_clip_that_does_not_fit_is_refused(
    error: Exception, tiny_checkpoint: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tiny_checkpoint) as engine:

        def memory(_given: Input) -> None:
            raise error

        check_first(monkeypatch, memory)
        for pair in pairs[:4]:
            with pytest.raises(LimitExceededError) as caught:
                await ask(engine, pair)
            assert caught.value.reason == "ENGINE_OUT_OF_MEMORY"
        assert engine.batcher.state().failed is None


async def test_start_fails_if_the_first_clip_does_not_fit(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(_given: Input) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nSee documentation")

    check_first(monkeypatch, memory)
    engine = build(tiny_checkpoint)
    with pytest.raises(EngineStartError, match=f"the memory of cpu does not hold {tiny_checkpoint} and a clip"):
        await engine.start()
    await engine.close()


# Failures


async def test_a_bad_item_fails_alone(
    tiny_checkpoint: Path, prepare: Preparation, pairs: list[Pair], solo: list[list[Timed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_alone = 7
    rows = [prepare(pair.samples, [word.text for word in words]).rows for pair, words in zip(pairs, solo, strict=True)]
    assert rows.count(rows[failed_alone]) == 1
    async with running(tiny_checkpoint, batch_tokens=100_000) as engine:

        def poison(given: Input) -> None:
            if rows[failed_alone] in given.rows:
                raise ValueError("poison")

        check_first(monkeypatch, poison)
        ends = await asyncio.gather(*(timed(engine, pair) for pair in pairs), return_exceptions=True)
        assert isinstance(ends[failed_alone], ValueError)
        assert [*ends[:failed_alone], *ends[failed_alone + 1 :]] == [*solo[:failed_alone], *solo[failed_alone + 1 :]]
        assert engine.batcher.state().failed is None


@pytest.mark.parametrize("kind", ["raises", "answers NaN"])
async def test_a_failing_device_goes_out_of_service_and_back(
    kind: str, tiny_checkpoint: Path, pairs: list[Pair], solo: list[list[Timed]], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str | None] = []
    broken = threading.Event()
    held = PackedAligner.answer

    def forward(model: PackedAligner, given: Input) -> list[TimestampSlots]:
        slots = held(model, given)
        if not broken.is_set():
            return slots
        if kind == "raises":
            raise RuntimeError("CUDA error: unspecified launch failure")
        return [TimestampSlots(one.classes, one.probabilities * np.float32("nan")) for one in slots]

    monkeypatch.setattr(PackedAligner, "answer", forward)
    async with running(tiny_checkpoint, batch_tokens=100_000, on_failed=reasons.append) as engine:
        gate.close()
        first, others = await hold_and_queue(engine, pairs, gate)
        broken.set()
        gate.open()
        ends = await asyncio.gather(*others, return_exceptions=True)
        assert all(isinstance(end, UnavailableError) and end.reason == "ENGINE_FAILED" for end in ends), ends
        (end,) = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(end, UnavailableError)
        assert end.reason == "ENGINE_UNAVAILABLE"  # it ran alone, and ended the process
        assert reasons == [engine.batcher.state().failed]
        assert ("CUDA error" if kind == "raises" else "NaN") in str(reasons[0])
        with pytest.raises(UnavailableError) as caught:
            await ask(engine, pairs[0])
        assert caught.value.reason == "ENGINE_FAILED"
        assert caught.value.retry_after
        broken.clear()
        await eventually(lambda: len(reasons) == 2)
        assert reasons[1] is None
        assert engine.batcher.state().failed is None
        assert await asyncio.gather(*(timed(engine, pair) for pair in pairs)) == solo


async def test_a_clip_whose_answer_is_nan_fails_alone(
    tiny_checkpoint: Path, prepare: Preparation, pairs: list[Pair], solo: list[list[Timed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in half precision can overflow on a clip. A confidence of NaN is never returned."""
    failed_alone = prepare(pairs[7].samples, [word.text for word in solo[7]]).rows
    plain = PackedAligner.answer

    def forward(model: PackedAligner, given: Input) -> list[TimestampSlots]:
        return [
            TimestampSlots(
                slots.classes,
                slots.probabilities * np.float32("nan") if rows == failed_alone else slots.probabilities,
            )
            for rows, slots in zip(given.rows, plain(model, given), strict=True)
        ]

    async with running(tiny_checkpoint) as engine:
        monkeypatch.setattr(PackedAligner, "answer", forward)
        ends = await asyncio.gather(*(ask(engine, pair) for pair in pairs), return_exceptions=True)
        assert [place for place, end in enumerate(ends) if isinstance(end, Exception)] == [7]


# Start and close


async def test_a_folder_without_a_checkpoint_fails_the_start(tmp_path: Path) -> None:
    engine = build(tmp_path)
    with pytest.raises(EngineStartError, match=r"config\.json is missing"):
        await engine.start()
    await engine.close()


async def test_close_is_idempotent(tiny_checkpoint: Path, pairs: list[Pair]) -> None:
    engine = build(tiny_checkpoint)
    await engine.close()
    await engine.close()
    engine = build(tiny_checkpoint)
    await engine.start()
    await ask(engine, pairs[0])
    await asyncio.gather(engine.close(), engine.close())
    await engine.close()


async def test_close_ends_every_call(tiny_checkpoint: Path, pairs: list[Pair], solo: list[list[Timed]], gate: Gate) -> None:
    """Those in preparation, in the queue and on the device end with their answer or with ENGINE_UNAVAILABLE."""
    engine = build(tiny_checkpoint, queue=1_000, batch_items=2)
    await engine.start()
    done = await timed(engine, pairs[0])
    gate.close()
    calls = [asyncio.create_task(timed(engine, pair)) for pair in pairs * 10]
    await gate.reached()
    closing = asyncio.create_task(engine.close())
    await loop_turns()
    assert not closing.done()
    gate.open()
    async with asyncio.timeout(WAIT_TIMEOUT):
        await closing
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert done == solo[0]
    for end, answer in zip(ends, solo * 10, strict=True):
        assert end == answer or (isinstance(end, UnavailableError) and end.reason == "ENGINE_UNAVAILABLE"), repr(end)


async def test_a_closed_engine_refuses_calls(tiny_checkpoint: Path, pairs: list[Pair]) -> None:
    engine = build(tiny_checkpoint)
    await engine.start()
    tokens = await engine.tokenise(pairs[0].text, pairs[0].language)
    await engine.close()
    with pytest.raises(AlignerError) as caught:
        await engine.align(Clip(pairs[0].samples), tokens, pairs[0].language, Caller())
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


# Threads and devices


def test_a_thread_keeps_its_number_of_cores_when_another_sets_its_own() -> None:
    """A thread takes the last number set anywhere with its first operation, unless it has read the number before."""
    many, one = device.thread_pool(1, "many", cores=3), device.thread_pool(1, "one", cores=1)
    for pool in (many, one, many):
        pool.submit(torch.ones, 1).result()
    work = torch.randn(1 << 20)
    for pool, cores in ((many, 3), (one, 1)):
        pool.submit(work.exp).result()
        assert pool.submit(torch.get_num_threads).result() == cores
        pool.shutdown()


def settings(name: str = "auto", dtype: str = "auto") -> QwenSettings:
    return QwenSettings.model_validate({"device": name, "dtype": dtype})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The GPUs of the machine, as PyTorch counts them."""

    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return have


def test_a_gpu_is_used_if_there_is_one(gpus: Callable[[int], None]) -> None:
    gpus(0)
    assert resolve_device(settings()) == torch.device("cpu")
    gpus(2)
    assert resolve_device(settings()) == torch.device("cuda")
    assert resolve_device(settings("cuda:1")) == torch.device("cuda:1")
    assert resolve_device(settings("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        (None, None, "this PyTorch has no CUDA"),
        ("12.8", None, r"no NVIDIA driver was found; .* built for CUDA 12\.8 and needs an NVIDIA driver 525 or newer"),
        (
            "13.0",
            (12, 2),
            r"the NVIDIA driver is too old, it has CUDA 12\.2; .* CUDA 13\.0 and needs an NVIDIA driver 580 or newer",
        ),
        ("13.0", (13, 0), "no GPU was found, though its driver was"),
    ],
)
def test_a_missing_gpu_is_reported(
    name: str,
    cuda: str | None,
    driver: tuple[int, int] | None,
    said: str,
    gpus: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus(0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(device, "_driver_cuda", lambda: driver)
    with pytest.raises(EngineStartError, match=f"^device {name}: {said}.*or use --device cpu$"):
        resolve_device(settings(name))


def test_a_cpu_that_was_not_asked_for_is_warned_of(gpus: Callable[[int], None], caplog: pytest.LogCaptureFixture) -> None:
    gpus(0)
    resolve_device(settings("cpu"))
    assert not caplog.records
    resolve_device(settings())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a CPU is used" in caplog.text


def test_a_gpu_number_out_of_range_is_reported(gpus: Callable[[int], None]) -> None:
    gpus(2)
    with pytest.raises(EngineStartError, match=r"^device cuda:2: there are 2 GPUs, counted from 0$"):
        resolve_device(settings("cuda:2"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_memory_that_does_not_suffice_is_known_by_any_of_its_errors(error: Exception) -> None:
    assert is_allocation_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        ValueError("out of memory"),
    ],
    ids=str,
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_allocation_failure(error)


@pytest.mark.parametrize(("name", "native"), [("cpu", True), ("cpu", False), ("cuda", True), ("cuda", False), ("cuda:1", False)])
def test_precision(name: str, native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A T4 (7.5) emulates bf16. Asked of the GPU in use: the first may be of another generation."""
    monkeypatch.setattr(device.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.version, "hip", None)
    capability = {torch.device(name): (9, 0) if native else (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: capability.get(which, (9, 0)))
    assert resolve_dtype(settings(), torch.device(name)) == (torch.bfloat16 if native else torch.float32)
    assert resolve_dtype(settings(dtype="fp32"), torch.device(name)) == torch.float32
    assert not caplog.records
    assert resolve_dtype(settings(dtype="bf16"), torch.device(name)) == torch.bfloat16
    assert ("emulates" in caplog.text) is not native


def test_a_build_without_onednn_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch for macOS."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_dtype(settings(), torch.device("cpu")) == torch.float32


def test_the_precision_of_this_cpu_is_found() -> None:
    """Through a function of PyTorch that is not documented, and may go."""
    assert resolve_dtype(settings(), torch.device("cpu")) in {torch.bfloat16, torch.float32}
