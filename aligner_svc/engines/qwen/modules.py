"""The classes of qwen-asr this engine uses, imported without the rest of the package.

`import qwen_asr` also imports its file loading, its demo and nagisa: five seconds, 200 MB, and a dynet compiled with -ffast-math,
which makes the importing thread round subnormal numbers to zero. And transformers imports scikit-learn and scipy, if installed:
another 70 MB and a tenth of the time, for text generation and object detection.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

_NAME = "qwen_asr"
_BACKEND = f"{_NAME}.core.transformers_backend"
_UNUSED = ("sklearn", "scipy")


def _import_backend() -> Any:
    """Import the package's model without running the package's `__init__`; a later `import qwen_asr` runs it."""
    if _NAME in sys.modules:
        return import_module(_BACKEND)
    spec = find_spec(_NAME)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{_NAME}'", name=_NAME)
    sys.modules[_NAME] = module_from_spec(spec)  # not executed
    # transformers looks for them once, on import
    hidden = () if "transformers" in sys.modules else tuple(name for name in _UNUSED if name not in sys.modules)
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # appears not to be installed
    try:
        return import_module(_BACKEND)
    finally:
        del sys.modules[_NAME]
        for name in hidden:
            del sys.modules[name]


_backend = _import_backend()
Qwen3ASRForConditionalGeneration: Any = _backend.Qwen3ASRForConditionalGeneration
Qwen3ASRProcessor: Any = _backend.Qwen3ASRProcessor
transformers_logging: Any = import_module("transformers.utils.logging")
