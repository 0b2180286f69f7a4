"""What a predecessor told of the usual, read by somebody who does not trust it."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple, cast

from brownout._core.baseline import MOST_ERRORS, TAILS
from brownout._core.cell import CLASSES
from brownout._core.sketch import BUCKETS, MOST, SCALE

VERSION = 1  # of what is kept
BLOCKS = 4  # numbers of the restlessness
ANCHORS = len(TAILS) + 1  # and of the ratchet
LEAST_CALLS = 80


class Kept(NamedTuple):
    """What a predecessor knew to be usual (see Usual.told), and the monotonic instant at which it did."""

    told: object
    at: float


def checked(told: object) -> dict[str, Any]:
    """What a predecessor told, without what does not belong there.

    Raises ValueError for what no predecessor can have told.
    """
    if not isinstance(told, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for all that is malformed
    kept = cast("dict[str, object]", told)
    if kept.get("version") != VERSION or kept.get("scale") != SCALE:
        raise ValueError("of another version")
    flat = _wholes(kept.get("counts"), 2 * BUCKETS)
    indices = flat[::2]
    if len(flat) % 2 or indices != sorted(set(indices)) or max(indices, default=0) >= BUCKETS:
        raise ValueError("not counts by bucket")
    if not LEAST_CALLS <= sum(flat[1::2]) <= MOST:
        raise ValueError("not as many calls as are learned")
    pinned = kept.get("pinned")
    if pinned is not None and not 0 <= _reals([pinned], 1)[0] <= MOST_ERRORS:
        raise ValueError("not a share")
    return {
        "counts": flat,
        "classes": _wholes(kept.get("classes"), CLASSES, CLASSES),
        "started": _wholes([kept.get("started")], 1)[0],
        "seconds": _reals([kept.get("seconds")], 1)[0],
        "blocks": _reals(kept.get("blocks"), BLOCKS),
        "anchors": _reals(kept.get("anchors"), ANCHORS),
        "pinned": pinned,
    }


def _wholes(value: object, most: int, least: int = 0) -> list[int]:
    if isinstance(value, list) and least <= len(cast("list[object]", value)) <= most:
        numbers = cast("list[object]", value)
        if all(type(one) is int and 0 <= one <= MOST for one in numbers):
            return cast("list[int]", numbers)
    raise ValueError("not whole numbers")


def _reals(value: object, many: int) -> list[float]:
    if isinstance(value, list) and len(cast("list[object]", value)) == many:
        numbers = cast("list[object]", value)
        if all(type(one) in {int, float} and _fits(cast("float", one)) for one in numbers):
            return cast("list[float]", numbers)
    raise ValueError("not numbers")


def _fits(number: float) -> bool:
    return isfinite(number) and abs(number) < 1e9
