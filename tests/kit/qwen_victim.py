"""The process of a device whose context can be destroyed: by SIGUSR1, after which every computation fails, as with CUDA."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from aligner_svc.engines.qwen.devices import worker
from aligner_svc.engines.qwen.devices.model import Model
from aligner_svc.engines.qwen.preparation import Prepared

broken = False


def destroy(*_: Any) -> None:
    global broken  # noqa: PLW0603
    broken = True


def compute(model: Model, batch: Sequence[Prepared]) -> Any:
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return plain(model, batch)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, destroy)
    plain = Model._compute
    Model._compute = compute  # type: ignore[method-assign,assignment]
    worker.main(*sys.argv[1:])
