"""Numbers as a person writes them."""

from __future__ import annotations

from math import isinf


def seconds(value: float) -> str:
    """A span as a person writes it: 6 ms, 0.25 s, 12 s."""
    if isinf(value):
        return "never"
    if value < 0.0995:
        return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def share(part: float, whole: float) -> str:
    """A share as a person writes it: 0.4 %, 27 %."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.1f} %" if 0 < percent < 1 else f"{percent:.0f} %"
