"""The classes of qwen-asr this engine uses, imported without the rest of the package.

`import qwen_asr` also imports its file loading, its demo and nagisa: five seconds, 200 MB, and a dynet compiled with -ffast-math,
which makes the importing thread round subnormal numbers to zero. And transformers imports scikit-learn, if installed, for one
function of text generation: another 70 MB.
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
    """Import the package's model without running the package's `__init__`; a later `import qwen_asr` runs it."""
    if _NAME in sys.modules:
        return import_module(_BACKEND)
    spec = find_spec(_NAME)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{_NAME}'", name=_NAME)
    sys.modules[_NAME] = module_from_spec(spec)  # not executed
    hidden = _UNUSED not in sys.modules and "transformers" not in sys.modules  # transformers looks for it once, on import
    if hidden:
        sys.modules[_UNUSED] = None  # type: ignore[assignment]  # appears not to be installed
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
