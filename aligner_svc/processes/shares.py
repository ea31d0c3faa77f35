"""What each of several processes gets of the settings: limits of the server are divided, so that they hold for all together."""

from __future__ import annotations

from typing import Final

from aligner_svc.config import Settings

_DIVIDED: Final = {
    "engine": {"workers": 1, "queue": 1, "streams": 1},
    "decode": {"workers": 1, "containers": 0},
    "stream": {"concurrent": 1},
    "connections": {"most": 1, "watches": 1},
    "overload": {"unfinished": 2},
    "antivirus": {"connections": 2},
}
"""The settings that are divided, and what each process has at least. Limits of an address or a caller are not: its
connections are spread over the processes, which count them by themselves."""


def share(settings: Settings, count: int, index: int) -> Settings:
    """The settings of process `index` of `count`; the first ones have more where a division leaves a remainder."""
    sections = {}
    for name, fields in _DIVIDED.items():
        section = getattr(settings, name)
        parts = {field: max(least, _part(getattr(section, field), count, index)) for field, least in fields.items()}
        sections[name] = section.model_copy(update=parts)
    return settings.model_copy(update=sections)


def _part(whole: int, count: int, index: int) -> int:
    return whole // count + (index < whole % count)
