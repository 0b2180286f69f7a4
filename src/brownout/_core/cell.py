"""Ticks and cells: what an operation showed in a tenth of a second, and in a few seconds.

Both add up, over time and over observers. A cell that is over is closed: packed in as few bytes as it
needs, since an operation keeps a handful of them.
"""

from __future__ import annotations

from itertools import chain
from operator import add
from typing import NamedTuple

from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import Sketch, least, opened, pairs_of, shut, unpack, widen

CLASSES = len(OutcomeClass)
CELL_SECONDS = 5.0
_LOCAL = OutcomeClass.LOCAL


class News:
    """What the shards have counted since the last fold: latencies as numbers of 32 bits a bucket."""

    __slots__ = ("answered", "censored", "classes", "waited", "wide")

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.censored: list[int] = []
        self.classes = [0] * CLASSES
        self.waited = 0.0
        self.wide = (0, 0)  # and of those that were many, in 64 bits

    def squeeze(self) -> None:
        """Keep what many shards have counted as if it were one's."""
        answered, censored = self.wide
        self.wide = (
            answered + sum(map(widen, self.answered)),
            censored + sum(map(widen, self.censored)),
        )
        self.answered, self.censored = [], []

    def pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The (bucket, count) pairs of what was answered, and of what was not."""
        if len(self.answered) > 1 or len(self.censored) > 1 or any(self.wide):
            self.squeeze()
            answered, censored = self.wide
            return unpack(answered), unpack(censored)
        return (
            pairs_of(self.answered[0]) if self.answered else [],
            pairs_of(self.censored[0]) if self.censored else [],
        )


class Tick(NamedTuple):
    """What is new since the last fold.

    `answered` and `censored` are (bucket, count) pairs; `ages` the buckets of the waiting times of
    attempts in flight at the target; `queued` attempts wait for our own pool.
    """

    at: float
    seconds: float
    started: int
    classes: list[int]
    answered: list[tuple[int, int]]
    censored: list[tuple[int, int]]
    ages: list[int]
    queued: int
    waited: float

    @property
    def idle(self) -> bool:
        """Whether nothing began, ended or waited."""
        return not (self.started or self.ages or self.queued or any(self.classes) or self.waited)

    @property
    def together(self) -> float:
        """How many calls were in flight at one moment: at its end, or on average (Little's law)."""
        now = len(self.ages) + self.queued
        calls = sum(self.classes) - self.classes[_LOCAL]
        if not calls:
            return now
        seconds = self.seconds
        ended = (*self.answered, *self.censored)
        busy = sum([min(least(index), seconds) * count for index, count in ended])
        return max(now, min(busy / max(self.seconds, 1e-3), now + calls))


class Cell:
    """A few seconds of one operation: counts by class, latencies, attempts started, seconds of pool wait.

    It began at the instant `at`, and `seconds` of it were folded.
    """

    __slots__ = ("at", "classes", "seconds", "sketch", "started", "waited")

    def __init__(self, at: float) -> None:
        self.at = at
        self.seconds = 0.0
        self.classes = [0] * CLASSES
        self.sketch = Sketch.narrow()
        self.started = 0
        self.waited = 0.0

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        self.seconds += min(tick.seconds, CELL_SECONDS)
        if tick.idle:
            return
        self.classes = list(map(add, self.classes, tick.classes))
        self.sketch.take(tick.answered, tick.censored)
        self.started += tick.started
        self.waited += tick.waited

    def merge(self, other: Cell) -> None:
        """Add another cell."""
        self.seconds += other.seconds
        self.classes = list(map(add, self.classes, other.classes))
        self.sketch.merge(other.sketch)
        self.started += other.started
        self.waited += other.waited

    @property
    def calls(self) -> int:
        """Settled attempts that are evidence: all but our own refusals."""
        return sum(self.classes) - self.classes[OutcomeClass.LOCAL]


class Closed(NamedTuple):
    """A cell that is over, in as few bytes as it needs."""

    at: float
    until: float
    seconds: float
    waited: float
    calls: int
    body: bytes

    @classmethod
    def of(cls, cell: Cell, until: float) -> Closed:
        """Close a cell, of which nothing more will be counted."""
        answered = [(i, n) for i, n in enumerate(cell.sketch.answered) if n]
        rest = [(i, n) for i, n in enumerate(cell.sketch.censored) if n] if cell.calls else []
        numbers = [*cell.classes, cell.started, len(answered), *chain(*answered), *chain(*rest)]
        return cls(cell.at, until, cell.seconds, cell.waited, cell.calls, shut(numbers))

    def open(self) -> Cell:
        """The cell as it was."""
        cell, numbers = Cell(self.at), opened(self.body)
        cell.seconds, cell.waited = self.seconds, self.waited
        cell.classes, cell.started = numbers[:CLASSES], numbers[CLASSES]
        flat = numbers[CLASSES + 2 :]
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        many = numbers[CLASSES + 1]
        cell.sketch.take(pairs[:many], pairs[many:])
        return cell

    @property
    def classes(self) -> list[int]:
        """Settled attempts by class."""
        return self.open().classes
