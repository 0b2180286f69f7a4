"""Durations as people write them: a number and a unit."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse(text: str) -> float:
    """Seconds of a duration such as "250ms", "2s" or "1m30s".

    Raises ValueError, which says what is wanted.
    """
    wanted = "a duration is a number and a unit: 250ms, 2s, 1m30s"
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f'"{text}" has no unit; did you mean "{text}s"? ({wanted})')
    if not text or _PART.sub("", text):
        raise ValueError(f'"{text}" is not a duration ({wanted})')
    return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
