"""Read a text aloud and see each word's time as it is found: a recording that is streamed while it is made.

    python samples/microphone.py "What I am going to read aloud." [HOST:PORT]

Needs aligner-client, and a program that writes raw 16-bit samples to its output: by default arecord, of alsa-utils. Another one:
RECORDER="sox -d -t raw -e signed -b 16 -r 16000 -c 1 -" python samples/microphone.py ... Ctrl-C ends the recording.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

from aligner_client import Aligner, AlignerClientError

RATE = 16_000
RECORDER = f"arecord --quiet --file-type raw --format S16_LE --rate {RATE} --channels 1"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    text, target = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"
    # Ctrl-C goes to the recorder too; it ends, and so does the upload, while this program waits for the last words.
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(shlex.split(os.environ.get("RECORDER", RECORDER)), stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        print("Read aloud; Ctrl-C when you are done.", file=sys.stderr)
        try:
            with Aligner(target) as aligner:
                for word in aligner.stream_words(recorder.stdout, text, encoding="linear16", sample_rate_hz=RATE):
                    print(f"{word.start:7.2f} {word.end:7.2f} {word.text} ({word.status.value.lower()})", flush=True)
        except AlignerClientError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            recorder.terminate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
