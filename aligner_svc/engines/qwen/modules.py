"""The classes of qwen-asr this engine uses, without the rest of the package.

`import qwen_asr` brings its file loading, its demo and nagisa along: five seconds, 200 MB, and a dynet
compiled with -ffast-math, which makes the thread that imports it round subnormal numbers to zero. And
transformers, where it finds scikit-learn, imports it for one function of text generation: another 70 MB.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

_NAME = "qwen_asr"
_BACKEND = f"{_NAME}.core.transformers_backend"
_UNUSED = "sklearn"


def _import_backend() -> Any:
    """The package's modules of the model; its `__init__` runs only for whoever imports it by name."""
    if _NAME in sys.modules:
        return import_module(_BACKEND)
    spec = find_spec(_NAME)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{_NAME}'", name=_NAME)
    sys.modules[_NAME] = module_from_spec(spec)  # not executed
    hidden = _UNUSED not in sys.modules and "transformers" not in sys.modules  # which looks once, when it is imported
    if hidden:
        sys.modules[_UNUSED] = None  # type: ignore[assignment]  # "not installed", to whoever looks
    try:
        return import_module(_BACKEND)
    finally:
        del sys.modules[_NAME]
        if hidden:
            del sys.modules[_UNUSED]


_backend = _import_backend()
Qwen3ASRForConditionalGeneration: Any = _backend.Qwen3ASRForConditionalGeneration
Qwen3ASRProcessor: Any = _backend.Qwen3ASRProcessor
transformers_logging: Any = import_module("transformers.utils.logging")
