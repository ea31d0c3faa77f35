"""The process of one device, `python -m ...qwen.devices.worker MODEL REVISION DTYPE ROWS ITEMS SHARE`, started by Devices."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.base import EngineStartError
from aligner_svc.engines.batching import DeviceMemoryError
from aligner_svc.engines.qwen.devices.wire import decode_batch, encode_answer
from aligner_svc.workers import Buffer, JsonValue, Work, attach, receive_place, refuse_start, serve_prepared

_BEHIND = 5
"""Niceness of a model on a CPU: it takes all cores, and the event loop and the imports of a spare process, 6 s, need them too."""


class _Warnings(logging.Handler):
    """Keeps the lines that the parent is to log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(model: str, revision: str, dtype: str, rows: str, items: str, share: str) -> None:  # noqa: PLR0917 - an argument vector
    parent = attach()  # before the seconds that the imports take, in which the parent may end
    try:
        from aligner_svc.engines.qwen.devices.model import DeviceBrokenError, Model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        refuse_start(parent, f"the engine qwen needs {error.name}, which is not installed: pip install 'aligner-svc[qwen]'")
        sys.exit(1)
    warned = _Warnings()
    logging.getLogger("aligner_svc").addHandler(warned)
    place = receive_place(parent)
    limits = {"batch_tokens": int(rows), "batch_items": int(items)}
    settings = QwenSettings.model_validate({"model": model, "revision": revision, "dtype": dtype, "device": place} | limits)
    try:
        running = Model(settings, int(share))
    except EngineStartError as error:
        refuse_start(parent, str(error))
        sys.exit(1)

    def check() -> tuple[Mapping[str, JsonValue], Buffer]:
        running.check()
        return {}, b""

    def prepare(header: dict[str, JsonValue], payload: memoryview) -> Work:
        """While the model computes."""
        if "tokenizer" in header:
            return lambda: ({}, running.tokenizer())
        if "check" in header:
            return check
        ready = running.prepare(decode_batch(header, payload))
        return lambda: encode_answer(running.run(ready))

    def answering(header: dict[str, JsonValue], payload: memoryview) -> Work:
        work = prepare(header, payload)

        def answer() -> tuple[Mapping[str, JsonValue], Buffer]:
            try:
                return work()
            except DeviceMemoryError:
                return {"memory": True}, b""
            except DeviceBrokenError:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)  # destructors would use the device once more

        return answer

    if running.loaded.device_type == "cpu":
        os.nice(_BEHIND)
    serve_prepared(answering, parent=parent, greeting=replace(running.loaded, warnings=warned.lines).greeting())


if __name__ == "__main__":
    main(*sys.argv[1:])
