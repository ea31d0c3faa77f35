"""Calls of the installed client, for test_wheel.py: run by any Python. Arguments: the server, the audio, the transcript."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aligner_client import Aligner, AsyncAligner, CallCancelledError, InvalidArgumentError

TARGET, AUDIO, TRANSCRIPT = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


SPEECH = AUDIO.read_bytes()


async def streamed() -> list[str]:
    async with AsyncAligner(TARGET) as aligner:
        return [word.text for word in (await aligner.stream_align([SPEECH], TRANSCRIPT)).words]


async def closed_meanwhile() -> str:
    """The error of a call whose client is closed before it ends."""
    aligner = AsyncAligner(TARGET)

    async def endless():
        while True:
            await asyncio.sleep(0.01)
            yield bytes(1000)

    call = asyncio.create_task(aligner.stream_align(endless(), TRANSCRIPT, encoding="linear16", sample_rate_hz=16000))
    await asyncio.sleep(0.2)
    await aligner.close()
    try:
        await call
    except CallCancelledError as error:
        return error.reason
    return ""


with Aligner(TARGET) as aligner:
    alignment = aligner.align(AUDIO, TRANSCRIPT)
    try:
        aligner.align(AUDIO, TRANSCRIPT, language="not a language")
    except InvalidArgumentError as error:
        refused = {"reason": error.reason, "fields": [one.field for one in error.violations], "request_id": error.request_id}
print(
    json.dumps(
        {
            "words": [word.text for word in alignment.words],
            "streamed": asyncio.run(streamed()),
            "srt": alignment.to_srt(),
            "refused": refused,
            "closed": asyncio.run(closed_meanwhile()),
            "server": sorted(
                {name.partition(".")[0] for name in sys.modules} & {"aligner_svc", "interceptors", "numpy", "pydantic"}
            ),
        }
    )
)
