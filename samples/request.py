"""Print an AlignRequest as JSON, for `grpcurl -d @`: the sample recording, or FILE and its transcript.

    python samples/request.py | grpcurl -plaintext -d @ 127.0.0.1:50051 aligner.v1.Aligner/Align
    python samples/request.py talk.mp3 "Good evening, everyone." | grpcurl ...

Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent / "librispeech_61-70968-0000.flac"


def arguments(description: str) -> argparse.Namespace:
    """`file`, `transcript` and `language`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE, help="audio file; default: the sample recording")
    parser.add_argument("transcript", nargs="?", help="its transcript; default: the .txt file beside it")
    parser.add_argument("--language", default="en", help="BCP-47 tag; default: en")
    options = parser.parse_args()
    if options.transcript is None:
        options.transcript = options.file.with_suffix(".txt").read_text(encoding="utf-8").strip()
    return options


def main() -> None:
    options = arguments("Print an AlignRequest as JSON.")
    config = {"transcript": options.transcript, "language": options.language}
    print(json.dumps({"config": config, "audio": base64.b64encode(options.file.read_bytes()).decode("ascii")}))


if __name__ == "__main__":
    main()
