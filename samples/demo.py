"""`make demo`: start a server, align the sample recording through it, print the answer.

The call goes through the generated stubs and a real socket, as a client's would.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from aligner_client.api.v1 import aligner_pb2, aligner_pb2_grpc

SAMPLES = Path(__file__).resolve().parent
RECORDING = SAMPLES / "librispeech_61-70968-0000.flac"
TRANSCRIPT = RECORDING.with_suffix(".txt")
SERVICE = "aligner.v1.Aligner"
READY = re.compile(r"aligner-svc ready on (\S+:\d+)")
WAIT_TIMEOUT = 60.0  # seconds for the server to load its model, and for each answer
ADDRESS = "127.0.0.1:50051"  # of `make run`


class DemoFailedError(Exception):
    """The demo cannot go on; the message says why."""


def address_of(server: subprocess.Popen[bytes], log: Path) -> str:
    """HOST:PORT from the line the server prints when it is ready."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while time.monotonic() < deadline:
        if match := READY.search(log.read_text(encoding="utf-8", errors="replace")):
            return match[1]
        if server.poll() is not None:
            raise DemoFailedError(f"the server exited with status {server.returncode}")
        time.sleep(0.05)
    raise DemoFailedError(f"the server was not ready within {WAIT_TIMEOUT:.0f} s")


def wait_until_serving(channel: grpc.Channel) -> None:
    """Block until grpc.health.v1 reports SERVING."""
    health = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + WAIT_TIMEOUT
    while time.monotonic() < deadline:
        reply = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=WAIT_TIMEOUT, wait_for_ready=True)
        if reply.status == health_pb2.HealthCheckResponse.SERVING:
            return
        time.sleep(0.1)
    raise DemoFailedError(f"health was not SERVING within {WAIT_TIMEOUT:.0f} s")


def align(channel: grpc.Channel) -> aligner_pb2.AlignResponse:
    transcript = TRANSCRIPT.read_text(encoding="utf-8").strip()
    request = aligner_pb2.AlignRequest(
        config=aligner_pb2.AlignConfig(transcript=transcript, language="en"),
        audio=RECORDING.read_bytes(),
    )
    return aligner_pb2_grpc.AlignerStub(channel).Align(request, timeout=WAIT_TIMEOUT)


def show(console: Console, response: aligner_pb2.AlignResponse) -> None:
    table = Table(title=f"When each word was spoken in {RECORDING.name}", title_justify="left")
    table.add_column("word")
    for name in ("start", "end", "confidence"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for word in response.words:
        status = aligner_pb2.WordStatus.Name(word.status).removeprefix("WORD_STATUS_").lower()
        table.add_row(word.text, f"{word.start_ms / 1000:.3f} s", f"{word.end_ms / 1000:.3f} s", f"{word.confidence:.2f}", status)
    console.print(table)
    summary = response.summary
    console.print(
        f"{summary.audio_ms / 1000:.1f} s of audio, language {summary.language}, engine {summary.engine}, "
        f"match score {summary.match_score:.2f}, answered in {summary.timing.total_ms} ms "
        f"(decoding {summary.timing.decode_ms}, aligning {summary.timing.align_ms})",
        highlight=False,
    )
    for warning in summary.warnings:
        console.print(f"warning {warning.code}: {warning.message}", highlight=False, markup=False)


def check(response: aligner_pb2.AlignResponse) -> None:
    """The sample is clear speech: if not every word is aligned, the installation is broken."""
    words = len(TRANSCRIPT.read_text(encoding="utf-8").split())
    aligned = sum(word.status == aligner_pb2.WORD_STATUS_ALIGNED for word in response.words)
    if len(response.words) != words or aligned < words:
        raise DemoFailedError(f"{aligned} of {words} words aligned; all were expected")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, as a supervisor would; the server drains and exits with status 0."""
    if server.poll() is None:
        server.terminate()
    try:
        status = server.wait(timeout=WAIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise DemoFailedError("the server did not stop on SIGTERM") from None
    if status != 0:
        raise DemoFailedError(f"the server exited with status {status} on SIGTERM")


def run(console: Console, log: IO[bytes]) -> None:
    command = [str(Path(sys.executable).with_name("aligner")), "serve", "--profile", "dev", "--listen", "127.0.0.1:0"]
    console.print(f"starting: aligner {' '.join(command[1:])}", highlight=False)
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = address_of(server, Path(log.name))
        # The address is on this machine: ignore a proxy from the environment.
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            wait_until_serving(channel)
            console.print(f"ready on {address}; sending {RECORDING.name}\n", highlight=False)
            response = align(channel)
        show(console, response)
        check(response)
    except BaseException:
        with suppress(DemoFailedError):  # report the first failure
            stop(server)
        raise
    stop(server)


def next_line(address: str = ADDRESS) -> str:
    """The same call as a shell command: with grpcurl, or with the client where grpcurl could not be installed."""
    beside = Path(sys.executable).with_name("grpcurl").exists()
    if not beside and not shutil.which("grpcurl"):
        target = "" if address == ADDRESS else f" --target {address}"
        return f".venv/bin/aligner align {RECORDING.relative_to(SAMPLES.parent)}{target}"
    grpcurl = ".venv/bin/grpcurl" if beside else "grpcurl"
    return f".venv/bin/python samples/request.py | {grpcurl} -plaintext -d @ {address} aligner.v1.Aligner/Align"


def main() -> int:
    options = argparse.ArgumentParser(description="Start a server, align the sample recording through it, print the words.")
    options.add_argument("--next", action="store_true", help="only print the command to try with `make run`")
    options.add_argument("--listen", default=ADDRESS, help="the address of `make run`")
    given, _ = options.parse_known_args()  # the others are those of `aligner serve`
    if given.next:
        print(f"To try when it is ready, in another terminal: {next_line(given.listen)}")
        return 0
    console = Console(soft_wrap=True)
    with tempfile.NamedTemporaryFile(prefix="aligner-demo-", suffix=".log") as log:
        try:
            run(console, log)
        except KeyboardInterrupt:
            return 130
        except (DemoFailedError, grpc.RpcError, OSError) as error:
            text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
            sys.stdout.flush()
            print(f"\ndemo failed: {text}\n\nthe server's log:", file=sys.stderr)
            print(Path(log.name).read_text(encoding="utf-8", errors="replace") or "(empty)", file=sys.stderr)
            return 1
    console.print("\nNext: `make run`, and in another terminal:\n")
    console.print(f"  {next_line()}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
