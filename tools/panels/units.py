"""Numbers as Grafana writes them, for the units this dashboard has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SI = ((1e9, " G"), (1e6, " M"), (1e3, " K"), (1.0, ""))
_BINARY = ((float(1 << 30), " GiB"), (float(1 << 20), " MiB"), (float(1 << 10), " KiB"), (1.0, " B"))
_TIME = ((604_800.0, " weeks"), (86_400.0, " days"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))
_SHARE = ((0.01, " %"),)


@dataclass(frozen=True, slots=True)
class Unit:
    """Multiples, the largest first, each with what stands behind the number; `behind` follows any of them."""

    multiples: Sequence[tuple[float, str]]
    behind: str = ""

    def multiple(self, value: float) -> tuple[float, str]:
        """The one to write `value` in. Zero has the plain one: 0 s, not 0 µs."""
        plain = next((found for found in self.multiples if found[0] == 1.0), self.multiples[-1])
        if value == 0:
            return plain
        return next((found for found in self.multiples if abs(value) >= found[0]), self.multiples[-1])

    def text(self, value: float) -> str:
        """With three significant digits, as a legend has it."""
        divisor, name = self.multiple(value)
        return f"{_plain(value / divisor, 3)}{name}{self.behind}"

    def ticks(self, highest: float, about: int = 4) -> list[tuple[float, str]]:
        """From 0 to `highest` or just over it, evenly: values and their labels, all in one multiple."""
        divisor, name = self.multiple(highest)
        step = _round_step(highest / divisor / about)
        count = max(1, math.ceil(highest / divisor / step - 1e-9))
        places = [step * number for number in range(count + 1)]
        return [(place * divisor, f"{_plain(place, 6)}{name}{self.behind}") for place in places]


def _plain(value: float, digits: int) -> str:
    """No exponent, no zeros at the end."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _round_step(rough: float) -> float:
    """The next of 1, 2, 2.5 and 5, times a power of ten; below one without 2.5, whose labels would be long."""
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (1.0, 2.0, 2.5, 5.0, 10.0) if power >= 1 else (1.0, 2.0, 5.0, 10.0)
    return next(step * power for step in steps if step * power >= rough * (1 - 1e-9))


UNITS: dict[str, Unit] = {
    "none": Unit(((1.0, ""),)),
    "short": Unit(_SI),
    "s": Unit(_TIME),
    "bytes": Unit(_BINARY),
    "percentunit": Unit(_SHARE),
    "reqps": Unit(_SI, " req/s"),
    "ops": Unit(_SI, " ops/s"),
}
"""By Grafana's names. One that is not here cannot be drawn: better said than shown without its unit."""
