"""Print the messages of a StreamAlign call as JSON, one a line, for `grpcurl -d @`: for recordings over the limit of Align.

    python samples/stream_request.py lecture.mp3 | grpcurl -plaintext -d @ 127.0.0.1:50051 aligner.v1.Aligner/StreamAlign

Takes the arguments of request.py. Reads the file in chunks, so its size does not matter. Standard library only.
"""

from __future__ import annotations

import base64
import json

from request import arguments

CHUNK = 64 * 1024  # bytes of audio in a message; servers accept up to 1 MiB by default


def main() -> None:
    options = arguments("Print the messages of a StreamAlign call as JSON, one a line.")
    # A 64-bit number is a string in JSON.
    size = str(options.file.stat().st_size)
    print(json.dumps({"config": {"transcript": options.transcript, "language": options.language, "audioBytes": size}}))
    with options.file.open("rb") as file:
        while chunk := file.read(CHUNK):
            print(json.dumps({"audio": base64.b64encode(chunk).decode("ascii")}))


if __name__ == "__main__":
    main()
