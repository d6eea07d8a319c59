"""One unit for all numbers of an axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """What values are divided by, and what is written behind them."""

    factor: float
    name: str


SCALES = {
    "s": (Unit(1e-3, "ms"), Unit(1.0, "s"), Unit(60.0, "min"), Unit(3600.0, "h")),
    "B": (Unit(1e3, "kB"), Unit(1e6, "MB"), Unit(1e9, "GB")),
    "MAC": (Unit(1e6, "MMAC"), Unit(1e9, "GMAC"), Unit(1e12, "TMAC"), Unit(1e15, "PMAC")),
    "J": (Unit(1.0, "J"), Unit(1e3, "kJ"), Unit(3.6e6, "kWh")),
    "W": (Unit(1.0, "W"),),
}


def unit(largest: float, base: str) -> Unit:
    """The largest unit in which `largest` is 2 or more; the smallest one where it is in none."""
    fitting = [u for u in SCALES[base] if largest >= 2 * u.factor]
    return fitting[-1] if fitting else SCALES[base][0]
