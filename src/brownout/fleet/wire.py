"""How evidence is written down, and how it is read by somebody who does not trust it.

JSON, never pickle. Everything read is checked for its type, bounded in length and count, and freed of
what could move a terminal's cursor or turn its text around; what does not fit is a ValueError, for
the reader to skip and count.
"""

from __future__ import annotations

import json
import re
import unicodedata
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from brownout._core.because import Number, Verdict
from brownout._core.recent import Recent
from brownout._core.sketch import FINEST, UNTOLD, Latencies, Sketch
from brownout._core.state import State
from brownout._core.view import Observer, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

NAME_CHARACTERS = 100
WRITTEN_CHARACTERS = 400  # of a name in the file: targets that differ late stay apart
SENTENCE_CHARACTERS = 500
MOST_BODY_BYTES = 65_536  # of one observer's evidence of one target
MOST_OPERATIONS = 33  # a target's 32 and "other"
MOST_NUMBERS = 64
MOST_BUCKETS = 64  # of the shape
MOST_ROWS = 512  # of the latencies
MOST_SPANS = 16  # of the latest calls
MOST_COUNTED = 10**12  # so that the sum over all that a reader takes fits in 64 bits
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_BLANK = frozenset({"Zl", "Zp", "Zs"})  # line and paragraph separators, and blanks of odd widths


def clean(text: str, most: int = NAME_CHARACTERS) -> str:
    """`text` as it may go to a terminal: no escapes, no control or bidi characters, at most so long."""
    if len(text) <= most and text.isprintable():
        return text
    plain = _ESCAPES.sub("", text[: 4 * most])
    kept = "".join(
        " " if character.isspace() or unicodedata.category(character) in _BLANK else character
        for character in plain
        if character.isspace() or not unicodedata.category(character).startswith("C")
    )
    return kept if len(kept) <= most else kept[: most - 1] + "…"


# ------------------------------------------------------------------------------------ written


class Told(NamedTuple):
    """A state change on its way into the file: wall and monotonic seconds, states by name."""

    target: str
    at: float
    monotonic: float
    before: str | None
    after: str | None
    because: str
    contradiction: bool


def write(verdicts: list[Verdict], wall: Callable[[float], float]) -> str:
    """One observer's evidence of one target as JSON. `wall` turns a monotonic instant into wall seconds."""
    kept, fine = verdicts[:MOST_OPERATIONS], True
    while True:
        body = json.dumps(
            {
                "claim": verdicts[0].claim if verdicts else None,
                "operations": [_operation(verdict, wall, fine=fine) for verdict in kept],
                "left_out": len(verdicts) - len(kept),
            },
            separators=(",", ":"),
            allow_nan=False,
        )
        if len(body) <= MOST_BODY_BYTES or not kept:  # ASCII: characters are bytes
            return body
        if fine:  # all operations without their latencies are worth more than half of them
            fine = False
        else:
            kept = kept[: len(kept) // 2]


def _operation(verdict: Verdict, wall: Callable[[float], float], *, fine: bool) -> dict[str, Any]:
    return {
        "operation": clean(verdict.operation),
        "state": verdict.state.name if verdict.state else None,
        "kind": verdict.kind,
        "extent": verdict.extent,
        "because": clean(verdict.because, SENTENCE_CHARACTERS),
        "numbers": [
            [name, _finite(value), None if limit is None else _finite(limit), unit]
            for name, value, limit, unit in verdict.numbers
        ],
        "shape": verdict.shape,
        "latencies": {
            "scale": verdict.latencies.scale,
            "rows": verdict.latencies.rows if fine else (),
        },
        "recent": verdict.recent,
        "own": clean(verdict.own, SENTENCE_CHARACTERS),
        "since": round(wall(verdict.since), 3),
        "at": round(wall(verdict.at), 3),
    }


def _finite(value: float) -> float | str:
    return float(f"{value:.6g}") if isfinite(value) else "inf"


# --------------------------------------------------------------------------------------- read


def read(observer: Observer, target: object, body: object) -> Seen:
    """The evidence of one target, checked. Raises ValueError for what nobody of ours has written."""
    text = _text(body, MOST_BODY_BYTES)
    try:
        told = _dict(json.loads(text, parse_constant=_refuse))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    name = clean(_text(target))
    claim = _claim(told.get("claim"))
    operations = _list(told.get("operations"), MOST_OPERATIONS)
    verdicts = tuple(_verdict(name, claim, one) for one in operations)
    in_flight = int(sum(v.number("in_flight") for v in verdicts if _has(v, "in_flight")))
    return Seen(observer, name, claim, in_flight, verdicts, int(_number(told.get("left_out"))))


def _has(verdict: Verdict, name: str) -> bool:
    return any(number.name == name for number in verdict.numbers)


def _claim(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ValueError("a claim is true, false or null")


def _verdict(target: str, claim: bool | None, body: object) -> Verdict:  # noqa: FBT001
    told = _dict(body)
    return Verdict(
        target=target,
        operation=clean(_text(told.get("operation"))),
        state=state(told.get("state")),
        kind=clean(_text(told.get("kind"))),
        extent=_number(told.get("extent")),
        because=clean(_text(told.get("because"), MOST_BODY_BYTES), SENTENCE_CHARACTERS),
        numbers=tuple(_measured(one) for one in _list(told.get("numbers"), MOST_NUMBERS)),
        shape=tuple(_tally(count) for count in _list(told.get("shape"), MOST_BUCKETS)),
        since=_number(told.get("since")),
        at=_number(told.get("at")),
        claim=claim,
        latencies=_latencies(told.get("latencies")),
        recent=tuple(_recent(one) for one in _list(told.get("recent", []), MOST_SPANS)),
        own=clean(_text(told.get("own", ""), MOST_BODY_BYTES), SENTENCE_CHARACTERS),
    )


def _recent(value: object) -> Recent:
    seconds, bad, calls = _list(value, 3)
    return Recent(_number(seconds), _whole(bad, 0, MOST_COUNTED), _whole(calls, 0, MOST_COUNTED))


def _latencies(value: object) -> Latencies:
    if value is None:
        return UNTOLD
    told = _dict(value)
    scale = _whole(told.get("scale"), 0, FINEST)
    sketch = Sketch()
    for one in _list(told.get("rows"), MOST_ROWS):
        index, answered, censored = _list(one, 3)
        counts = (_whole(count, 0, MOST_COUNTED) for count in (answered, censored))
        sketch.put(_whole(index, -MOST_COUNTED, MOST_COUNTED), scale, *counts)
    return sketch.told()


def _whole(value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError("not a whole number, or out of its bounds")
    return value


def _measured(told: object) -> Number:
    name, value, limit, unit = _list(told, 4)
    return Number(
        clean(_text(name)),
        _measure(value),
        None if limit is None else _measure(limit),
        clean(_text(unit), 8),
    )


def _measure(value: object) -> float:
    return inf if value == "inf" else _number(value)


def observer(row: tuple[object, ...]) -> Observer:
    """An observer from its row of the file, checked. Raises ValueError."""
    id_, name, zone, host, pid, started, written, ended, lost, left_out = row
    return Observer(
        id=clean(_text(id_), 2 * NAME_CHARACTERS),
        name=clean(_text(name)) or "?",
        zone=clean(_text(zone)),
        host=clean(_text(host)),
        pid=int(_number(pid)),
        started=_number(started),
        written=_number(written),
        ended=None if ended is None else _number(ended),
        lost=int(_number(lost)),
        left_out=int(_number(left_out)),
    )


def state(name: object) -> State | None:
    """A state by its name; None is no evidence. Raises ValueError for any other word."""
    if name is None:
        return None
    try:
        return State[_text(name)]
    except KeyError:
        raise ValueError("not a state") from None


def text(value: object, most: int = NAME_CHARACTERS) -> str:
    """A text of the file, checked and cleaned. Raises ValueError."""
    return clean(_text(value, MOST_BODY_BYTES), most)


def number(value: object) -> float:
    """A finite number of the file. Raises ValueError."""
    return _number(value)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _text(value: object, most: int = WRITTEN_CHARACTERS) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("not a text, or too long a one")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise ValueError("not a number")
    return float(value) if isfinite(value) else _refuse(str(value))


def _list(value: object, most: int) -> list[object]:
    if not isinstance(value, list) or len(cast("list[object]", value)) > most:
        raise ValueError("not a list, or too long a one")
    return cast("list[object]", value)


def _dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for all that is malformed
    return cast("dict[str, object]", value)


def _tally(value: object) -> int:
    if _number(value) < 0:
        raise ValueError("a count is not negative")
    return int(_number(value))
