"""A stream: the calls of one observer at one operation, counted against what is usual for them.

A judge may have several, each with its own usual: what they show adds up.
"""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.bank import Table, table
from brownout._core.baseline import LATE
from brownout._core.cell import Tick
from brownout._core.modes import COLUMNS, ERROR, FAST, OVERLOAD, REFUSED, WAITING
from brownout._core.outcome import CENSORED, OutcomeClass
from brownout._core.sketch import bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.baseline import Baseline

BLINK = bucket(0.001)  # no caller is so impatient
NOTHING = [0] * COLUMNS
_DEFINITE = {
    OutcomeClass.FAILURE: ERROR,
    OutcomeClass.OVERLOAD: OVERLOAD,
    OutcomeClass.CONNECT: REFUSED,
}


class Stream:
    """What one kind of call is counted against, and which attempts of it wait.

    `waiting` counts by column the attempts in flight, and `scored` what of them is in the scores already;
    `labels` say what the calls have in common, such as ("operation", "read").
    """

    __slots__ = ("base", "labels", "scored", "table", "waiting")

    def __init__(self, base: Baseline, labels: tuple[tuple[str, str], ...] = ()) -> None:
        self.base = base
        self.table = table(base)
        self.labels = labels
        self.waiting = NOTHING
        self.scored: Sequence[float] = NOTHING

    def rebase(self, base: Baseline) -> None:
        """Count against a new baseline."""
        self.base = base
        self.table = table(base)

    def quiet(self) -> None:
        """What was in flight is not known to wait any more."""
        self.waiting = self.scored = NOTHING

    @property
    def rests(self) -> bool:
        """Whether nobody waits, and nobody's waiting is in the scores."""
        return self.waiting is NOTHING and not any(self.scored)

    def count(self, tick: Tick) -> list[int]:
        """The calls of a tick by column."""
        base = self.base
        level, fast = base.level, base.fast
        calls = [0] * COLUMNS
        for index, count in tick.answered:
            calls[level[index] if index >= fast else FAST] += count
        classes = tick.classes
        calls[ERROR] = classes[OutcomeClass.FAILURE]
        calls[OVERLOAD] = classes[OutcomeClass.OVERLOAD]
        calls[REFUSED] = classes[OutcomeClass.CONNECT]
        if tick.censored or classes[OutcomeClass.UNKNOWN]:
            self._unanswered(tick, calls)
        if tick.ages:
            waiting = [0] * COLUMNS
            for index in tick.ages:
                if level[index]:
                    waiting[WAITING + level[index]] += 1
            self.waiting = waiting
        else:
            self.waiting = NOTHING
        return calls

    def column(self, class_: OutcomeClass | None, index: int) -> int | None:
        """The column of a call by its class (None: it waits) and its latency's bucket, if it has one."""
        base = self.base
        if class_ is OutcomeClass.SUCCESS:
            return base.level[index] if index >= base.fast else FAST
        if class_ is OutcomeClass.UNKNOWN and (base.cold or index <= BLINK):
            return WAITING + LATE
        if class_ is None or class_ in CENSORED:
            level = (base.level if class_ is None else base.left)[index]
            return WAITING + level if level else None
        return _DEFINITE.get(class_)

    def _unanswered(self, tick: Tick, calls: list[int]) -> None:
        left = self.base.left
        for index, count in tick.censored:
            if left[index]:
                calls[WAITING + left[index]] += count
        unknown = tick.classes[OutcomeClass.UNKNOWN]
        if self.base.cold:
            # Without a usual, what timed out was silent as long as anybody was ready to wait.
            calls[WAITING + LATE] = max(calls[WAITING + LATE], unknown)
        else:  # no timer is so short: whoever says so at once is not impatient, but told so
            waited = sum(count for index, count in tick.censored if index > BLINK)
            calls[WAITING + LATE] += max(0, unknown - waited)


News = tuple[Stream, Tick]  # a stream, and what is new of it


class Part(NamedTuple):
    """What one stream showed in a tick."""

    stream: Stream
    table: Table  # by which it was counted
    calls: list[int]
    tick: Tick


class Tally:
    """Calls by column, for each usual that they were counted against."""

    __slots__ = ("_by",)

    def __init__(self) -> None:
        self._by: dict[Table, list[float]] = {}

    def add(self, by: Table, calls: Sequence[float]) -> None:
        """Add calls."""
        known = self._by.get(by)
        self._by[by] = list(map(add, known, calls)) if known else list(calls)

    def halve(self) -> None:
        """Forget half of them."""
        for by, calls in self._by.items():
            self._by[by] = [count // 2 for count in calls]

    @property
    def total(self) -> float:
        """How many."""
        return sum(map(sum, self._by.values()))

    def best(self) -> tuple[int, float]:
        """The mode that explains them best, and by how many nats better than the usual does."""
        fits: Sequence[float] = ()
        nulls = [0.0, 0.0]
        for by, calls in self._by.items():
            columns = [(index, count) for index, count in enumerate(calls) if count]
            more = by.fits(columns)
            fits = list(map(add, fits, more)) if fits else more
            for index, null in enumerate(by.nulls):
                nulls[index] += sum(count * null[column] for column, count in columns)
        if not fits:
            return 0, 0.0
        most = max(fits)
        return fits.index(most), most - max(nulls)

    def clearer(self, one: int, other: int) -> float:
        """By how many nats the first mode explains them better than the second."""
        nats = 0.0
        for by, calls in self._by.items():
            a, b = by.modes[one].log_p, by.modes[other].log_p
            nats += sum(n * (a[i] - b[i]) for i, n in enumerate(calls) if n)
        return nats

    def speaks(self, mode: int) -> float:
        """What they add to the score of a mode."""
        nats = 0.0
        for by, calls in self._by.items():
            row = by.modes[mode].nats
            nats += sum(n * row[i] for i, n in enumerate(calls) if n)
        return nats


def merged(ticks: Sequence[Tick]) -> Tick:
    """The ticks of several streams at one time as one."""
    first = ticks[0]
    if len(ticks) == 1:
        return first
    return Tick(
        first.at,
        max(tick.seconds for tick in ticks),
        sum(tick.started for tick in ticks),
        [sum(column) for column in zip(*(tick.classes for tick in ticks), strict=True)],
        [pair for tick in ticks for pair in tick.answered],
        [pair for tick in ticks for pair in tick.censored],
        [age for tick in ticks for age in tick.ages],
        sum(tick.queued for tick in ticks),
        sum(tick.waited for tick in ticks),
    )
