"""The classes of qwen-asr this engine uses, without the rest of the package.

`import qwen_asr` brings its file loading, its demo and nagisa along: five seconds, 200 MB, and a dynet
compiled with -ffast-math, which makes the thread that imports it round subnormal numbers to zero.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

_NAME = "qwen_asr"
_BACKEND = f"{_NAME}.core.transformers_backend"


def _import_backend() -> Any:
    """The package's modules of the model; its `__init__` runs only for whoever imports it by name."""
    if _NAME in sys.modules:
        return import_module(_BACKEND)
    spec = find_spec(_NAME)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{_NAME}'", name=_NAME)
    sys.modules[_NAME] = module_from_spec(spec)  # not executed
    try:
        return import_module(_BACKEND)
    finally:
        del sys.modules[_NAME]


_backend = _import_backend()
Qwen3ASRForConditionalGeneration: Any = _backend.Qwen3ASRForConditionalGeneration
Qwen3ASRProcessor: Any = _backend.Qwen3ASRProcessor
