"""`make bench-gpu`: Qwen3-ForcedAligner on a GPU, compared to qwen-asr, the arithmetic bound and the goals.

Weights are random, of the true size: times do not depend on their values. Everything is measured on this machine in one
run, and nothing is downloaded. `tools/gpu_bundle.sh` packs it for a machine that has PyTorch and no network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aligner_svc.engines.qwen import checkpoint as checkpoints
from aligner_svc.engines.qwen import glue
from aligner_svc.engines.qwen.attention import Attention, for_device, one_by_one
from aligner_svc.engines.qwen.device import PREPARERS, thread_pool
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.outcome import assemble
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.text.model_words import split
from bench.flops import count
from bench.gpu_subject import QUICK, Plan, Subject
from bench.synthetic import LANGUAGE, WORDS_A_SECOND, Speech, speech
from tests.kit.checkpoint import TINY, TRUE_SIZE, build
from tests.kit.qwen_reference import Reference

GOAL_RATE, GOAL_RATIO, GOAL_LATENCY = 8000.0, 5.0, 5.0
"""Multiples of real time at the best batch on one H100; ratio to qwen-asr; milliseconds for a clip of 10 s."""
DISTINCT = 4
"""Different clips of each length; a batch repeats them."""
MEMORY = (180.0, 32)
ESTIMATE = (30.0, 49)
"""Seconds and clips of the batch that was estimated: see `estimates`."""
_PRODUCTS = 10
"""Matrix products between two waits for the device."""
MIXED = (1.3, 10.0, 0.7, 30.0, 4.2, 17.9, 8.0, 25.5)


@dataclass(slots=True)
class Row:
    """One line of the table; rates are multiples of real time, or the reason why there is none."""

    seconds: float
    batch: int
    rows: int
    flops: int
    forward: float | str = "-"
    whole: float | str = "-"
    qwen_asr: float | str = "-"


def many(seconds: float, batch: int) -> list[Speech]:
    distinct = [speech(seconds, seed) for seed in range(min(DISTINCT, batch))]
    return [distinct[index % len(distinct)] for index in range(batch)]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    for cells in (header, ["---:"] * len(header), *rows):
        line(cells)


def line(cells: Sequence[object]) -> None:
    print("| " + " | ".join(f"{cell:,.0f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True)


# ---- the device


def peak(subject: Subject) -> tuple[float, str]:
    """The highest rate of several bf16 matrix products, in operations a second, and its shape: the bound for the model."""
    best, shape = 0.0, ""
    shapes = [(4096,) * 3, (8192,) * 3, (16384, 1024, 4096), (16384, 4096, 1024), (32768, 3072, 1024), (65536, 1024, 3072)]
    for rows, inner, columns in shapes if subject.device.type == "cuda" else [(1024,) * 3]:
        left, right = (torch.randn(size, device=subject.device).bfloat16() for size in ((rows, inner), (inner, columns)))
        seconds = subject.timed(lambda left=left, right=right: [left @ right for _ in range(_PRODUCTS)])
        if isinstance(seconds, float) and (rate := 2 * rows * inner * columns * _PRODUCTS / seconds) > best:
            best, shape = rate, f"{rows} x {inner} x {columns}"
    return best, shape


def attention_here(device: torch.device, dtype: torch.dtype) -> tuple[Attention, str]:
    """The engine's choice, and its name."""
    chosen = for_device(device, dtype)
    return chosen, f"attention: {getattr(chosen, '__name__', chosen)}"


# ---- measurements


def throughput(subject: Subject, reference: Reference | None) -> Iterator[Row]:
    """For every length and batch: the forward pass, the whole way from samples to classes, and qwen-asr's align."""
    for seconds in subject.plan.seconds:
        full = slow = ""  # why larger batches of this length are skipped
        for batch in subject.plan.batches:
            clips = many(seconds, batch)
            items = subject.batch(clips)
            audio = sum(clip.seconds for clip in clips)
            flops = count(subject.loaded.thinker.config, items).total
            row = Row(seconds, batch, sum(item.rows for item in items), flops)
            if subject.left() < 0:
                row.forward = row.whole = row.qwen_asr = "no time"
                yield row
                continue
            took = full or subject.timed(partial(subject.aligner, items))
            row.forward = audio / took if isinstance(took, float) else took
            full = took if isinstance(took, str) else ""
            try:
                row.whole = full or whole(subject, clips)
            except torch.OutOfMemoryError:
                row.whole = "no memory"
            if reference:
                row.qwen_asr = slow or _theirs(subject, reference, clips)
                if isinstance(row.qwen_asr, str):
                    slow = row.qwen_asr
                elif audio / row.qwen_asr > subject.plan.max_seconds / 2:
                    slow = "too slow"
            yield row


def _theirs(subject: Subject, reference: Reference, clips: Sequence[Speech]) -> float | str:
    """`align` of qwen-asr as shipped, one batch."""
    texts, languages = [clip.text for clip in clips], [LANGUAGE] * len(clips)
    took = subject.timed(partial(reference.shipped, [clip.samples for clip in clips], texts, languages))
    return sum(clip.seconds for clip in clips) / took if isinstance(took, float) else took


def whole(subject: Subject, clips: Sequence[Speech], batches: int = 3) -> float:
    """Samples and text to classes, one batch being prepared while another is on the device, as two processes of one device do."""
    with preparing_threads(subject.preparers) as pool, ThreadPoolExecutor(1) as ahead:

        def submit() -> Future[list[Prepared]]:
            return ahead.submit(subject.batch, clips, pool.map)

        waiting: Future[list[Prepared]] | None = submit()
        began = 0.0
        done = 0
        for turn in range(batches + 1):
            assert waiting is not None
            items = waiting.result()
            waiting = submit() if turn < batches else None
            subject.aligner(items)
            subject.wait()
            if not turn:
                began = time.perf_counter()
                continue
            done += 1
            if time.perf_counter() - began > subject.plan.max_seconds:
                break
        return done * sum(clip.seconds for clip in clips) / (time.perf_counter() - began)


def preparing_threads(count: int) -> ThreadPoolExecutor:
    """The service's own thread pool."""
    return thread_pool(count, "prepare", cores=1)


def preparing(subject: Subject) -> dict[int, float]:
    """Multiples of real time of the preparation alone, by number of threads."""
    clips = many(30.0, 16)
    rates = {}
    for threads in (1, 2, 4, 8):
        with preparing_threads(threads) as pool:
            took = subject.timed(lambda pool=pool: list(pool.map(subject.prepare, clips)))
        assert isinstance(took, float)
        rates[threads] = sum(clip.seconds for clip in clips) / took
    return rates


def latency(subject: Subject, aligner: PackedAligner) -> dict[str, tuple[float, float]]:
    """p50 and p95 in ms for one clip of 10 s: on the device alone, and from samples and text to words' times."""
    clip = speech(10.0, 0)
    item = subject.prepare(clip)

    def answer() -> None:
        (slots,) = aligner([subject.prepare(clip)])
        assemble(slots, clip.seconds, subject.loaded.segment_ms, 0.0, 0.0)

    figures = {}
    for name, work in (("forward", lambda: aligner([item])), ("samples to times", answer)):
        seconds = []
        for turn in range(subject.plan.latencies + 5):
            start = time.perf_counter()
            work()
            subject.wait()
            if turn >= 5:
                seconds.append(time.perf_counter() - start)
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000
        figures[name] = (float(p50), float(p95))
    return figures


def memory(subject: Subject) -> tuple[float, float] | str:
    """Peak GB allocated with the batch MEMORY, and GB of the weights alone."""
    if subject.device.type != "cuda":
        return "only measured on a GPU"
    seconds, batch = MEMORY
    items = subject.batch(many(seconds, 1) * batch)
    subject.wait()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(subject.device)
    torch.cuda.reset_peak_memory_stats(subject.device)
    took = subject.timed(partial(subject.aligner, items))
    return (torch.cuda.max_memory_allocated(subject.device) / 1e9, before / 1e9) if isinstance(took, float) else took


def alike(left: Sequence[TimestampSlots], right: Sequence[TimestampSlots]) -> tuple[float, float]:
    """Shares of equal classes, and of those at most one class apart."""
    apart = np.concatenate([np.abs(a.classes - b.classes) for a, b in zip(left, right, strict=True)])
    return float((apart == 0).mean()), float((apart <= 1).mean())


def correctness(subject: Subject, reference: Reference | None) -> dict[str, tuple[float, float]]:
    clips = [speech(seconds, index) for index, seconds in enumerate(MIXED)]
    items = [subject.prepare(clip) for clip in clips]
    solo = [subject.aligner([item])[0] for item in items]
    plain = PackedAligner(subject.loaded, one_by_one)
    found = {
        "packed, against each clip by itself": alike(subject.aligner(items), solo),
        "packed, against attention one clip at a time": alike(subject.aligner(items), plain(items)),
    }
    chosen = sorted(range(len(clips)), key=lambda index: clips[index].seconds)[: subject.plan.compared]
    exact = checkpoints.load(str(subject.folder), torch.device("cpu"), torch.float32)
    mel = Preparation(exact, torch.float32)
    words = [[token.spoken[0] for token in split(clips[index].text, LANGUAGE)] for index in chosen]
    truth = PackedAligner(exact)([mel(clips[index].samples, spoken) for index, spoken in zip(chosen, words, strict=True)])
    found["each clip by itself, against this engine on the CPU in fp32"] = alike([solo[index] for index in chosen], truth)
    if reference:
        logits = [reference.logits(clips[index].samples, clips[index].text, LANGUAGE).float() for index in chosen]
        theirs = [TimestampSlots(row.argmax(-1).cpu().numpy(), row.amax(-1).cpu().numpy()) for row in logits]
        found["qwen-asr here, windowed, against the same"] = alike(theirs, truth)
    return found


def idle(subject: Subject) -> dict[str, str]:
    """Share of a pass's time in which the GPU computes and copies nothing, by the profiler."""
    shares = {}
    for seconds, batch in ((10.0, 1), (30.0, 32)) if subject.device.type == "cuda" else ():
        items = subject.batch(many(seconds, batch))
        subject.aligner(items)
        subject.wait()
        began = time.perf_counter()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            subject.aligner(items)
            subject.wait()
            passed = time.perf_counter() - began
        busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
        shares[f"{batch} x {seconds:g} s"] = f"{max(0.0, 1 - busy / passed):.0%}"
    return shares or {"all": "only measured on a GPU"}


def estimates(subject: Subject) -> list[tuple[str, str, str]]:
    """What was counted and estimated for an H100 before any was had, beside what this device takes."""
    seconds, clips = ESTIMATE
    batches = {1: many(10.0, 1), clips: many(seconds, clips)}
    seen = {batch: subject.timed(partial(subject.aligner, subject.batch(material))) for batch, material in batches.items()}
    shown = {batch: f"{took * 1000:.1f} ms" if isinstance(took, float) else took for batch, took in seen.items()}
    return [
        ("1 x 10 s", "8 to 11 ms with 1,064 launches; 528 where compiled", shown[1]),
        (
            f"{clips} x {seconds:g} s",
            "141 ms, of which 57 between the products, before they were merged",
            shown[clips],
        ),
    ]


def other(subject: Subject) -> tuple[str, PackedAligner]:
    """The engine with what is between the products compiled if it is not, and not compiled if it is."""
    loaded = checkpoints.load(str(subject.folder), subject.device, subject.aligner.dtype)
    made = PackedAligner(loaded, subject.attention, fused=False)
    compiles = made._glue == glue.Glue()  # noqa: SLF001
    made._glue = glue.compiled() if compiles else glue.Glue()  # noqa: SLF001
    return "compiled" if compiles else "not compiled", made


def variants(subject: Subject) -> list[tuple[str, float | str, float | str, float]]:
    """Name, multiples of real time at 32 x 30 s in two turns, ms for a clip of 10 s."""
    items = subject.batch(many(30.0, 32 if subject.device.type == "cuda" else 4))
    audio = 30.0 * len(items)
    try:
        name, changed = other(subject)
        changed(items)
        changed(items[:1])
    except Exception as error:  # compilers fail in many ways, and nothing else depends on this
        subject.note(f"torch.compile: does not work here: {str(error).strip().splitlines()[0][:200]}")
        return []
    both = {"as it is": subject.aligner, name: changed}
    subject.note(f"{name}, equal classes: {alike(subject.aligner(items), changed(items))[0]:.2%}")
    turns = [{name: subject.timed(partial(aligner, items)) for name, aligner in both.items()} for _ in range(2)]
    rates = {name: [audio / turn[name] if isinstance(turn[name], float) else turn[name] for turn in turns] for name in both}
    return [(name, *rates[name], latency(subject, aligner)["forward"][0]) for name, aligner in both.items()]


# ---- the run


def goal(text: str, reached: bool, counts: bool) -> str:
    return f"goal {text}: {('reached' if reached else 'MISSED') if counts else 'does not apply to this device'}"


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    on_gpu = subject.device.type == "cuda"
    reference = None
    if not options.no_qwen_asr:
        reference = Reference(subject.folder, subject.aligner.dtype, str(subject.device))
    subject.timed(partial(subject.aligner, [subject.prepare(speech(10.0, 0))]))

    best, shape = peak(subject)
    print(f"\nbf16 products of matrices: {best / 1e12:,.1f} TFLOP/s peak ({shape})", flush=True)

    print("\n## Correctness: shares of equal classes (and of those at most one apart)\n", flush=True)
    found = correctness(subject, reference)
    table(("what", "equal", "at most one apart"), [(k, f"{a:.2%}", f"{b:.2%}") for k, (a, b) in found.items()])

    print("\n## Latency, one clip of 10 s, ms\n", flush=True)
    times = latency(subject, subject.aligner)
    table(("what", "p50", "p95"), [(name, f"{p50:.1f}", f"{p95:.1f}") for name, (p50, p95) in times.items()])
    p50 = times["samples to times"][0]
    print(f"\nsamples to times: {p50:.1f} ms; {goal(f'<= {GOAL_LATENCY:g} ms', p50 <= GOAL_LATENCY, on_gpu)}")

    print("\n## Preparation on the CPU alone, multiples of real time\n", flush=True)
    prepared = preparing(subject)
    table([f"{threads} threads" for threads in prepared], [list(prepared.values())])

    print(f"\n## Memory, {MEMORY[1]} x {MEMORY[0]:g} s\n", flush=True)
    held = memory(subject)
    print(held if isinstance(held, str) else f"{held[0]:.2f} GB peak, of which {held[1]:.2f} GB before (weights)")

    print("\n## Idle share of the GPU in a pass\n", flush=True)
    unused = idle(subject)
    table(list(unused), [list(unused.values())])

    print("\n## Estimates for one H100, and what was seen here\n", flush=True)
    expected = estimates(subject)
    table(("batch", "estimated", "seen"), expected)

    print("\n## Throughput, multiples of real time\n", flush=True)
    rows = shown(throughput(subject, reference), best, subject.preparers)
    verdict(rows, on_gpu)

    both = []
    if options.compile if options.compile is not None else not options.quick and subject.left() > 0:
        print("\n## Variants, multiples of real time and ms for a clip of 10 s\n", flush=True)
        both = variants(subject)
        if both:
            table(("what", "rate", "again", "ms"), [(name, rate, again, f"{ms:.1f}") for name, rate, again, ms in both])
    return {
        "matmul_flops": best, "matmul_shape": shape, "correctness": found, "latency_ms": times, "preparing": prepared,
        "memory_gb": held, "idle": unused, "estimates": expected, "variants": both, "throughput": [asdict(row) for row in rows],
    }  # fmt: skip


def shown(rows: Iterator[Row], best: float, preparers: int) -> list[Row]:
    """Prints each row as soon as it is measured."""
    prepared = f"with preparation ({preparers} threads)"
    table(("clip s", "batch", "rows", "GFLOP", "forward", "bound", "share of it", prepared, "qwen-asr", "times qwen-asr"), [])
    done = []
    for row in rows:
        done.append(row)
        bound = row.seconds * row.batch * best / row.flops
        share = f"{row.forward / bound:.0%}" if isinstance(row.forward, float) else "-"
        ratio = "-"
        if isinstance(row.whole, float) and isinstance(row.qwen_asr, float):
            ratio = f"{row.whole / row.qwen_asr:.1f}"
        sizes = (f"{row.seconds:g}", row.batch, row.rows, f"{row.flops / 1e9:,.3g}")
        line((*sizes, row.forward, bound, share, row.whole, row.qwen_asr, ratio))
    return done


def verdict(rows: Sequence[Row], on_gpu: bool) -> None:
    forward, whole_way, theirs = (
        max((rate for row in rows if isinstance(rate := getattr(row, name), float)), default=0.0)
        for name in ("forward", "whole", "qwen_asr")
    )
    print(
        f"\nbest forward: {forward:,.0f} x real time; {goal(f'>= {GOAL_RATE:,.0f} x on one H100', forward >= GOAL_RATE, on_gpu)}"
    )
    if theirs:
        ratio = whole_way / theirs
        print(f"best over best, end to end: {ratio:.1f} x qwen-asr; {goal(f'>= {GOAL_RATIO:g} x', ratio >= GOAL_RATIO, on_gpu)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer measurements, no torch.compile")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; without it one with random weights is made")
    parser.add_argument("--tiny", action="store_true", help="the tests' checkpoint instead of one of the true size")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu only shows that this program works")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--json", type=Path, help="write everything into this file too")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="measure torch.compile too (unless --quick)")
    parser.add_argument("--no-qwen-asr", action="store_true", help="leave qwen-asr out")
    parser.add_argument("--preparers", type=int, help="threads that prepare; default: as many as the service has")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on the CPU")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        build_of = "is a CUDA build" if torch.version.cuda else "is a CPU build"
        print(f"bench.gpu: there is no CUDA GPU here (PyTorch {torch.__version__} {build_of}).", file=sys.stderr)
        print("To see the program work without one: python -m bench.gpu --device cpu --tiny --quick", file=sys.stderr)
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    began = time.perf_counter()
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    plan = QUICK if options.quick else Plan()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, validation only: no figure here is one of a GPU"
    size = "tiny" if options.tiny else "true size"
    what = options.model or f"random weights, {size}"
    print(f"# {QwenEngine.name} on {name}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as temporary:
        folder = options.model or build(Path(temporary) / "model", TINY if options.tiny else TRUE_SIZE, dtype=dtype)
        loaded = checkpoints.load(str(folder), device, dtype)
        attention, note = attention_here(device, dtype)
        preparation = Preparation(loaded, dtype, pinned=device.type == "cuda")
        subject = Subject(
            folder, device, loaded, preparation, attention, PackedAligner(loaded, attention),
            options.preparers or PREPARERS, plan, began + plan.total,
        )  # fmt: skip
        clip = speech(60.0, 0)
        item = subject.prepare(clip)
        operations = count(loaded.thinker.config, [item]).total / clip.seconds
        subject.note(f"PyTorch {torch.__version__}, {options.dtype}, {torch.get_num_threads()} CPU threads; {note}")
        subject.note(f"model: {what}; ready after {time.perf_counter() - began:.0f} s")
        subject.note(
            f"{WORDS_A_SECOND} words, {item.rows / clip.seconds:.1f} decoder rows and {operations / 1e9:.3g} GFLOP a second"
        )
        results = measure(subject, options)
        results |= {
            "device": name,
            "torch": torch.__version__,
            "dtype": options.dtype,
            "model": str(what),
            "notes": subject.notes,
        }
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
