"""What one would write in place of the service: FastAPI, a decoder, and the same engine in each process of uvicorn.

    uvicorn bench.vs_app:app --workers 2

Uploads and recordings are bounded as the service bounds them. The engine is not thread-safe, so a process aligns one call at a
time; all else runs on uvicorn's loop and its pool of threads.
"""

from __future__ import annotations

import io
from threading import Lock
from typing import Annotated, Any

import av
import av.error
import numpy as np
from fastapi import FastAPI, Form, HTTPException, UploadFile
from starlette.concurrency import run_in_threadpool

from aligner_svc.domain import SAMPLE_RATE, Clip, Token
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.ladder import Ladder
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.windows import align_in_windows
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words

UPLOAD_BYTES, AUDIO_SECONDS = 10 << 20, 4 * 3600
app, engine = FastAPI(), Lock()
speller = Speller()
aligner = WindowAligner(Ladder(Recogniser(speller), PhonemeModel()), speller, BoundaryRefiner())


def decode(data: bytes) -> Clip:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts, length = [], 0
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(audio=0):
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
            length += frame.samples
            if length > AUDIO_SECONDS * frame.sample_rate:
                raise HTTPException(413, "the audio is too long")
    return Clip(np.concatenate(parts))


def align_window(samples: Any, coming: list[Token], last: bool, complete: bool) -> Any:
    with engine:
        return aligner.align(samples, [token.spoken for token in coming], last, complete)


@app.post("/align")
async def align(audio: UploadFile, transcript: Annotated[str, Form()]) -> list[tuple[str, float, float, float]]:
    data = await audio.read(UPLOAD_BYTES + 1)
    if len(data) > UPLOAD_BYTES:
        raise HTTPException(413, "the upload is too large")
    try:
        clip = await run_in_threadpool(decode, data)
    except (av.error.FFmpegError, IndexError, ValueError):
        raise HTTPException(400, "the audio could not be decoded") from None
    tokens = [token for token in words(transcript, tokenise, "en") if token.spoken]
    placed = await align_in_windows(clip, tokens, lambda *window: run_in_threadpool(align_window, *window))
    found = [(token.text, one.offset, one.span) for token, one in zip(tokens, placed, strict=False) if one.span is not None]
    return [(text, offset + span.start, offset + span.end, span.confidence) for text, offset, span in found]
