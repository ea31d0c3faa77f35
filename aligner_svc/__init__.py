"""aligner-svc: when was each word of a transcript spoken in a recording?"""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: importing importlib.metadata is 40 % of what `aligner --help` imports."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("aligner-svc")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
