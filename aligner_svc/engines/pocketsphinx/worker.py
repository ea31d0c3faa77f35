"""The worker process, `python -m aligner_svc.engines.pocketsphinx.worker SANDBOX_MODE PRIORITY`, started by the engine's pool."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.fft  # numpy imports it on first use, when the sandbox no longer allows opening files

from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.ladder import Ladder
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.phones import with_phones
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import (
    decode_request,
    encode_answer,
    encode_refusal,
    encode_tokens,
    is_live,
    text_language,
    wants_phones,
)
from aligner_svc.engines.self_test import check_split
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words
from aligner_svc.workers import JsonValue, Priority, Sandbox, SandboxMode, serve

_WARM_UP_SECONDS = 1


def main(mode: SandboxMode, priority: Priority) -> None:
    speller = Speller()
    recogniser, refiner = Recogniser(speller), BoundaryRefiner()
    aligner = WindowAligner(Ladder(recogniser, PhonemeModel()), speller, refiner)
    check_split(tokenise)  # reads the dictionary of words in capitals while files can still be opened
    aligner.align(np.zeros(16_000 * _WARM_UP_SECONDS, dtype=np.int16), [["warm"], ["up"]], last=True, complete=True)

    def handle(header: dict[str, JsonValue], payload: memoryview) -> tuple[dict[str, JsonValue], bytes]:
        language = text_language(header)
        if language is not None:
            transcript = str(payload, "utf-8")
            try:
                return encode_tokens(words(transcript, tokenise, language), transcript)
            except InvalidArgumentError as error:
                return encode_refusal(error), b""
        tokens, last, complete = decode_request(header)
        samples = np.frombuffer(payload, dtype=np.int16)
        answer = aligner.align(samples, tokens, last, complete, live=is_live(header))
        if wants_phones(header):
            answer = replace(answer, spans=with_phones(answer.spans, samples, tokens, recogniser.phones, refiner))
        return encode_answer(answer), b""

    serve(handle, Sandbox(mode), priority)


if __name__ == "__main__":
    main(cast("SandboxMode", sys.argv[1]), cast("Priority", sys.argv[2]))
