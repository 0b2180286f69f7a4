"""Text in the cells of a terminal: how wide it is, fitted, wrapped, drawn, coloured."""

from __future__ import annotations

import unicodedata
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.:-=+*#"
_ASCII = str.maketrans(
    {
        "≠": "!=",
        "†": "+",
        "─": "-",
        "…": "~",
        "→": "->",
        "·": ".",
        "●": "",
        "◐": "",
        "▲": "",
        "◇": "",
        "✕": "",
    }
)
# Told apart by normal, protan, deutan and tritan sight; the nearest of the 256 colours.
_DARK = {
    State.HEALTHY: 153,
    State.DEGRADED: 229,
    State.OVERLOADED: 172,
    State.UNRESPONSIVE: 98,
    State.CRASHED: 168,
}
_LIGHT = {
    State.HEALTHY: 30,
    State.DEGRADED: 100,
    State.OVERLOADED: 94,
    State.UNRESPONSIVE: 57,
    State.CRASHED: 52,
}


class Style(NamedTuple):
    """How text may be drawn: with colour, in ASCII only, on a light ground."""

    colour: bool = False
    ascii: bool = False
    light: bool = False


PLAIN = Style()


def style(
    environ: Mapping[str, str], *, terminal: bool, ascii_only: bool = False, encoding: str = "utf-8"
) -> Style:
    """The style for an output: colour only on a terminal that has it and whose user does not refuse it.

    NO_COLOR and TERM=dumb are obeyed; COLORFGBG tells a light ground; an encoding without the shapes
    leaves the letters.
    """
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"
    light = environ.get("COLORFGBG", "").rpartition(";")[2] in {"7", "15"}
    try:
        (BARS + "●◐▲◇✕≠†─…→·").encode(encoding)
    except (UnicodeEncodeError, LookupError):
        ascii_only = True
    return Style(colour=colour, ascii=ascii_only, light=light)


def width(text: str) -> int:
    """How many cells `text` takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cell(character) for character in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """`text` in exactly so many cells: padded, or cut with "…"."""
    if width(text) > cells:
        taken = ""
        for character in text:
            if width(taken + character) > cells - 1:
                break
            taken += character
        text = taken + "…"
    blank = " " * (cells - width(text))
    return blank + text if right else text + blank


def wrap(text: str, cells: int) -> list[str]:
    """`text` in lines of at most so many cells, broken at blanks, and within a word only if need be."""
    lines = [""]
    for word in text.split():
        rest = word
        if lines[-1] and width(lines[-1]) + 1 + width(rest) > cells:
            lines.append("")
        while width(rest) > cells:
            taken = rest[: cells // 2]  # fits even if every character is wide
            lines[-1:] = [taken, ""]
            rest = rest[len(taken) :]
        lines[-1] = f"{lines[-1]} {rest}" if lines[-1] else rest
    return lines


def bars(values: Sequence[float], style: Style = PLAIN) -> str:
    """Numbers from 0 up as bars, the highest at full height. What is not 0 is seen; NaN is a gap."""
    ramp = ASCII_BARS if style.ascii else BARS
    top = max((value for value in values if not isnan(value)), default=0.0) or 1.0
    drawn: list[str] = []
    for value in values:
        if isnan(value):
            drawn.append(" ")
        elif value <= 0:
            drawn.append(ramp[0])
        else:
            drawn.append(ramp[max(1, min(7, round(7 * value / top)))])
    return "".join(drawn)


def mark(state: State | None, style: Style = PLAIN) -> str:
    """Letter and shape of a state, such as "D ◐"; the letter alone in ASCII. "·" is no evidence."""
    if state is None:
        return "." if style.ascii else "·"
    return state.letter if style.ascii else f"{state.letter} {state.shape}"


def paint(text: str, state: State | None, style: Style) -> str:
    """`text` in the state's colour, where colour is wanted."""
    if not style.colour or state is None:
        return text
    return f"\x1b[38;5;{(_LIGHT if style.light else _DARK)[state]}m{text}\x1b[0m"


def plain(line: str, style: Style) -> str:
    """A line as the style allows it: in ASCII, characters beyond it are replaced."""
    if not style.ascii:
        return line
    return line.translate(_ASCII).encode("ascii", "replace").decode()
