"""The worker process, `python -m aligner_svc.engines.pocketsphinx.languages.worker SANDBOX_MODE PRIORITY LANGUAGES`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.fft  # numpy imports it on first use, when the sandbox no longer allows opening files

from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.languages.reader import split_transcript
from aligner_svc.engines.pocketsphinx.languages.recogniser import PhoneRecogniser
from aligner_svc.engines.pocketsphinx.languages.spelling import LanguageSpeller
from aligner_svc.engines.pocketsphinx.languages.window import LanguageWindowAligner
from aligner_svc.engines.pocketsphinx.languages.wire import decode_window
from aligner_svc.engines.pocketsphinx.phones import with_phones
from aligner_svc.engines.pocketsphinx.wire import encode_answer, is_live, text_language, wants_phones
from aligner_svc.workers import JsonValue, Priority, Sandbox, SandboxMode, serve

_WARM_UP_SECONDS = 1


def main(mode: SandboxMode, priority: Priority, languages: list[str]) -> None:
    speller = LanguageSpeller(languages)
    split_transcript(memoryview(b"a 1"), "de")
    recogniser, refiner = PhoneRecogniser(), BoundaryRefiner()
    aligner = LanguageWindowAligner(recogniser, speller, refiner)
    aligner.align(np.zeros(16_000 * _WARM_UP_SECONDS, dtype=np.int16), [["a"]], languages[0], last=True, complete=True)

    def handle(header: dict[str, JsonValue], payload: memoryview) -> tuple[dict[str, JsonValue], bytes]:
        language = text_language(header)
        if language is not None:
            return split_transcript(payload, language)
        language, tokens, last, complete = decode_window(header)
        samples = np.frombuffer(payload, dtype=np.int16)
        answer = aligner.align(samples, tokens, language, last, complete, live=is_live(header))
        if wants_phones(header):
            words = aligner.spoken(tokens, language)
            answer = replace(answer, spans=with_phones(answer.spans, samples, words, recogniser.phones, refiner))
        return encode_answer(answer), b""

    serve(handle, Sandbox(mode), priority)


if __name__ == "__main__":
    main(cast("SandboxMode", sys.argv[1]), cast("Priority", sys.argv[2]), sys.argv[3].split(","))
