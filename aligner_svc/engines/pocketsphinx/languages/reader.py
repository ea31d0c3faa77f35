"""The process that reads Chinese and Japanese: `python -m aligner_svc.engines.pocketsphinx.languages.reader MODE LANGUAGES`.

Their dictionaries take 50 to 200 MB, too much for every aligner process, and split and read 10,000 characters in a tenth of a
second.
"""

from __future__ import annotations

import sys
from typing import cast

from aligner_svc.engines.pocketsphinx.wire import MalformedError, encode_refusal, encode_tokens, text_language
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.spoken import tokenise
from aligner_svc.text.transcript import words
from aligner_svc.workers import JsonValue, Sandbox, SandboxMode, serve


def split_transcript(payload: memoryview, language: str) -> tuple[dict[str, JsonValue], bytes]:
    """The answer to a `text_request`."""
    transcript = str(payload, "utf-8")
    try:
        return encode_tokens(words(transcript, tokenise, language), transcript)
    except InvalidArgumentError as error:
        return encode_refusal(error), b""


def main(mode: SandboxMode, languages: list[str]) -> None:
    for language in languages:
        split_transcript(memoryview("\u65e5\u672c 1".encode()), language)  # loads what reads it

    def handle(header: dict[str, JsonValue], payload: memoryview) -> tuple[dict[str, JsonValue], bytes]:
        language = text_language(header)
        if language is None:
            raise MalformedError("no language")
        return split_transcript(payload, language)

    serve(handle, Sandbox(mode))


if __name__ == "__main__":
    main(cast("SandboxMode", sys.argv[1]), sys.argv[2].split(","))
