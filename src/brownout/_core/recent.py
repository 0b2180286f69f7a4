"""The latest calls of one operation in half seconds: how many there were, and how many of them were bad.

It is what observers tell one another, so that a fleet can say who suffers since when.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.outcome import OutcomeClass

if TYPE_CHECKING:
    from brownout._core.baseline import Baseline
    from brownout._core.cell import Tick

SPANS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds
SLOW = 3  # the level that one healthy call in a hundred reaches
_SLOT_SECONDS = 0.5
_SLOTS = 61  # the one under way, and thirty seconds
_BAD = (OutcomeClass.FAILURE, OutcomeClass.OVERLOAD, OutcomeClass.CONNECT)


class Recent(NamedTuple):
    """How many of the calls of the last `seconds` were bad: failed, refused, not answered, or slow.

    What is slow is so for one healthy call in a hundred.
    """

    seconds: float
    bad: int
    calls: int


class Latest:
    """Counts of bad calls and of all, by half seconds."""

    __slots__ = ("_bad", "_calls", "_slot", "_waiting")

    def __init__(self) -> None:
        self._bad, self._calls = array("I", [0] * _SLOTS), array("I", [0] * _SLOTS)
        self._slot = 0
        self._waiting = 0

    def add(self, tick: Tick, base: Baseline) -> None:
        """Count what a tick showed against what is usual."""
        self._turn(tick.at)
        classes = tick.classes
        level, left = base.level, base.left
        slow = sum(count for index, count in tick.answered if level[index] >= SLOW)
        gone = sum(count for index, count in tick.censored if left[index] >= SLOW)
        unknown = max(gone, classes[OutcomeClass.UNKNOWN])
        bad = slow + unknown + sum(classes[class_] for class_ in _BAD)
        calls = classes[OutcomeClass.SUCCESS] + bad - slow
        slot = self._slot % _SLOTS
        self._bad[slot] += bad
        self._calls[slot] += calls
        self._waiting = sum(1 for index in tick.ages if level[index] >= SLOW)

    def _turn(self, now: float) -> None:
        """Empty the slots that have passed since the last time."""
        slot = int(now / _SLOT_SECONDS)
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._bad[passed % _SLOTS] = self._calls[passed % _SLOTS] = 0
        self._slot = max(self._slot, slot)

    def told(self, now: float) -> tuple[Recent, ...]:
        """What the last half second showed, the last second, and so on; what waits long is in all of them."""
        self._turn(now)
        found: list[Recent] = []
        bad = calls = self._waiting
        passed = 0
        for span in SPANS:
            until = int(span / _SLOT_SECONDS) + 1  # the one under way is not yet a whole one
            for back in range(passed, until):
                bad += self._bad[(self._slot - back) % _SLOTS]
                calls += self._calls[(self._slot - back) % _SLOTS]
            passed = until
            found.append(Recent(span, bad, calls))
        return tuple(found)
