"""Three minutes of a service's life: callers with good and with bad manners, a burst, a crash, an attack, an outage."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from grpc import aio, ssl_channel_credentials

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.api.v1.aligner_pb2_grpc import AlignerStub
from tests.kit.clamd_server import EICAR
from tests.kit.recordings import SPEECH, TRANSCRIPT, repeated
from tools.panels.scene import Scene

DEADLINE = 30.0
_SEED = 7
_CHUNK = 32 * 1024
_ATTACKER = "127.0.0.9"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", "localhost"))


@dataclass(frozen=True, slots=True)
class Phase:
    """What goes on for some seconds; the rates are calls a second, at random times. Those left out are the usual ones."""

    what: str
    seconds: float
    align: float = 1.2
    trial: float = 0.4
    hurried: float = 0.05
    called_off: float = 0.05
    guesses: float = 0.0
    worker_dies: bool = False
    redis_unavailable: bool = False


PHASES = (
    Phase("usual load", 40),
    Phase("a caller asks for more than its quota", 20, trial=5),
    Phase("a burst", 25, align=16, hurried=1.2, called_off=0.8),
    Phase("usual load again", 20),
    Phase("a worker process dies", 15, worker_dies=True),
    Phase("somebody guesses at keys", 25, guesses=4),
    Phase("the quotas' store is away", 20, redis_unavailable=True),
    Phase("usual load again", 15),
)
STREAMS, INFO, BROKEN, INFECTED, STRANGERS, READERS = 0.15, 0.5, 0.15, 0.1, 0.1, 0.1
"""Calls a second, all the time."""


@dataclass(slots=True)
class Callers:
    """Connections, each call counted by how it ended."""

    people: Any
    attacker: Any
    """AlignerStubs; their annotations are those of blocking calls."""
    scene: Scene
    ended: Counter[str] = field(default_factory=Counter)

    async def align(self, request: pb.AlignRequest, credential: tuple[str, str], deadline: float = DEADLINE) -> None:
        await self._count(self.people.Align(request, metadata=(credential,), timeout=deadline))

    async def called_off(self, request: pb.AlignRequest) -> None:
        call: Any = self.people.Align(request, metadata=(self.scene.credentials.people,), timeout=DEADLINE)
        asyncio.get_running_loop().call_later(0.05, call.cancel)
        await self._count(call)

    async def stream(self, audio: bytes, transcript: str) -> None:
        async def sent() -> AsyncIterator[pb.StreamAlignRequest]:
            yield pb.StreamAlignRequest(config=_config(transcript))
            for at in range(0, len(audio), _CHUNK):
                yield pb.StreamAlignRequest(audio=audio[at : at + _CHUNK])
                await asyncio.sleep(0.02)  # as an upload over a network comes

        call: Any = self.people.StreamAlign(sent(), metadata=(self.scene.credentials.batch,), timeout=DEADLINE)
        with suppress(aio.AioRpcError):
            async for _ in call:
                pass
        await self._count(call)

    async def info(self, credential: tuple[str, str]) -> None:
        await self._count(self.people.GetServerInfo(pb.GetServerInfoRequest(), metadata=(credential,), timeout=DEADLINE))

    async def guess(self, credential: tuple[str, str]) -> None:
        await self._count(self.attacker.GetServerInfo(pb.GetServerInfoRequest(), metadata=(credential,), timeout=DEADLINE))

    async def _count(self, call: Any) -> None:
        self.ended[(await call.code()).name] += 1


async def drive(scene: Scene, phases: Sequence[Phase] = PHASES) -> Counter[str]:
    """Calls by how they ended, when all phases are over and all calls with them."""
    chance = random.Random(_SEED)
    async with (
        _through(_ATTACKER, scene.address) as relay,
        _connected(scene.address, scene.ca) as people,
        _connected(relay, scene.ca) as attacker,
        asyncio.TaskGroup() as calls,
    ):
        callers = Callers(people, attacker, scene)
        for phase in phases:
            _happens(scene, phase)
            flows = _flows(phase, callers, chance)
            async with asyncio.timeout(phase.seconds * 2), asyncio.TaskGroup() as sources:
                for rate, make in flows:
                    sources.create_task(_at_random(rate, make, phase.seconds, chance, calls))
    return callers.ended


def shortened(phases: Sequence[Phase], minutes: float) -> list[Phase]:
    """The same story in another time, for a trial."""
    factor = minutes * 60 / sum(phase.seconds for phase in phases)
    return [replace(phase, seconds=phase.seconds * factor) for phase in phases]


Make = Callable[[], Coroutine[Any, Any, None]]


def _flows(phase: Phase, callers: Callers, chance: random.Random) -> list[tuple[float, Make]]:
    """Calls a second of each kind, and what makes one."""
    show = callers.scene.credentials
    clip = pb.AlignRequest(config=_config(TRANSCRIPT), audio=SPEECH)
    recordings = [repeated(times) for times in (1, 1, 1, 2)]
    long_audio, long_transcript = repeated(4)
    long = pb.AlignRequest(config=_config(long_transcript), audio=long_audio)
    broken = pb.AlignRequest(config=_config(TRANSCRIPT), audio=SPEECH[:4000] + b"\0" * 4000)
    infected = pb.AlignRequest(config=_config(TRANSCRIPT), audio=SPEECH + EICAR)

    def some() -> pb.AlignRequest:
        audio, transcript = chance.choice(recordings)
        # Half of them are uploads that nobody has scanned before: the last sample is another.
        return pb.AlignRequest(config=_config(transcript), audio=audio[:-2] + chance.choice((b"\0\0", chance.randbytes(2))))

    def guess() -> Coroutine[Any, Any, None]:
        return callers.guess(chance.choice((show.stranger, show.mistyped)))

    return [
        (phase.align, lambda: callers.align(some(), show.people)),
        (phase.trial, lambda: callers.align(clip, show.trial)),
        (phase.hurried, lambda: callers.align(long, show.people, 0.5)),
        (phase.called_off, lambda: callers.called_off(clip)),
        (phase.guesses, guess),
        (STREAMS, lambda: callers.stream(long_audio, long_transcript)),
        (INFO, lambda: callers.info(show.people)),
        (BROKEN, lambda: callers.align(broken, show.people)),
        (INFECTED, lambda: callers.align(infected, show.people)),
        (STRANGERS, lambda: callers.info(show.stranger)),
        (READERS, lambda: callers.info(show.reader)),
    ]


def _happens(scene: Scene, phase: Phase) -> None:
    """What begins a phase besides calls."""
    if phase.worker_dies:
        with suppress(ProcessLookupError):
            os.kill(max(scene.server.children()), signal.SIGKILL)
    if scene.redis is not None:
        if phase.redis_unavailable:
            scene.redis.kill()
        elif not scene.redis.running:
            scene.redis.start()


async def _at_random(rate: float, make: Make, seconds: float, chance: random.Random, calls: asyncio.TaskGroup) -> None:
    """Calls come when they come, whatever became of those before."""
    loop = asyncio.get_running_loop()
    due = began = loop.time()
    while rate and (due := due + chance.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        calls.create_task(make())
    await asyncio.sleep(max(0.0, began + seconds - loop.time()))


def _config(transcript: str) -> pb.AlignConfig:
    return pb.AlignConfig(transcript=transcript, language="en")


@asynccontextmanager
async def _connected(target: str, ca: bytes) -> AsyncIterator[AlignerStub]:
    async with aio.secure_channel(target, ssl_channel_credentials(ca), options=_OPTIONS) as channel:
        yield AlignerStub(channel)


@asynccontextmanager
async def _through(address: str, target: str) -> AsyncIterator[str]:
    """HOST:PORT of a relay whose connections to `target` come from `address`: gRPC cannot choose what it calls from."""
    host, _, port = target.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
        except ConnectionError:
            writer.close()
            return
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
