"""What one observer knows of one operation of a target.

Calls write into a *shard*, one a thread, without a lock: counts there only ever grow, and attempts in
flight stand in its table of pending attempts. A *fold* adds up all shards and takes what is new since
the last fold as one *tick*. So a fold can't lose a count, and it sees a hang while it lasts, also when
no new call is made. The shard of a thread that has ended is freed, and so is one whose 32-bit counts
are half full; what it counted stays in the sum. Everything here adds up: evidence of two observers
merges by sums.
"""

from __future__ import annotations

from operator import add, attrgetter, sub
from typing import TYPE_CHECKING

from brownout._core.cell import CELL_SECONDS, CLASSES, Cell, Closed, News, Tick
from brownout._core.held import Holds
from brownout._core.labelled import Labelled, Labels
from brownout._core.outcome import CENSORED, OutcomeClass
from brownout._core.sketch import (
    HALF_FULL,
    NOTHING,
    bucket,
    together,
    zeros,
)

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from brownout._core.attempt import Attempt
    from brownout._core.late import Lateness

GRACE_SECONDS = 10.0
CELLS = 6  # the window is the last 25 to 30 s
_SUCCESS = OutcomeClass.SUCCESS
_TELLS = attrgetter("tells")
_NONE = [0] * CLASSES


class Shard:
    """What one thread's attempts at one operation showed. Written by that thread, read by folds.

    Successes are counted by latency alone (`answered`), all else by class as well; `repeats` are the
    attempts that were not a call's first. What the last fold has seen of it is kept beside.
    """

    __slots__ = (
        "_censored", "answered", "classes", "labelled", "late", "pending", "repeats", "told", "told_censored",
        "told_classes", "told_waited", "waited",
    )  # fmt: skip

    def __init__(self, labelled: Labels) -> None:
        self.labelled = labelled  # the operation's
        self.late: Lateness | None = None  # of its thread, where a loop runs there
        self.pending: dict[Attempt, None] = {}
        self.repeats = 0
        self.classes = [0] * CLASSES
        self.answered = zeros()
        self._censored: array[int] | None = None  # most are never needed
        self.waited = 0.0
        self.told = self.told_censored = NOTHING
        self.told_classes = _NONE
        self.told_waited = 0.0

    @property
    def censored(self) -> array[int]:
        """Attempts without an answer, by how long they waited."""
        if self._censored is None:
            self._censored = zeros()
        return self._censored

    def settle(self, attempt: Attempt, class_: OutcomeClass, now: float) -> bool:
        """Count what an attempt showed; False if it had been settled before (and nothing is counted)."""
        try:
            del self.pending[attempt]
        except KeyError:
            return False
        seconds = self.took(attempt, now)
        if class_ is _SUCCESS:
            self.answered[bucket(seconds)] += 1
        else:
            if class_ in CENSORED:
                self.censored[bucket(seconds)] += 1
            self.classes[class_] += 1
        self.waited += attempt.waited_seconds
        if attempt.labels:
            self.labelled.add(attempt, class_, seconds, now)
        return True

    def took(self, attempt: Attempt, now: float) -> float:
        """How much of the time since an attempt began was the target's."""
        began = attempt.began + attempt.waited_seconds
        return now - began - (self.late.lost(began, now) if self.late else 0.0)

    @property
    def counts(self) -> list[int]:
        """Settled attempts by class, successes among them."""
        return [sum(self.answered), *self.classes[1:]]

    @property
    def calls(self) -> int:
        """First attempts ever admitted."""
        return sum(self.counts) + len(self.pending) - self.repeats

    @property
    def tells(self) -> bool:
        """Whether there may be anything that the last fold has not seen, or that waits."""
        return bool(
            self.pending
            or self.answered.tobytes() != self.told
            or self.classes != self.told_classes
            or self.waited != self.told_waited
            or self._censored is not None
        )

    def tell(self, news: News) -> bool:
        """Add to `news` what the last fold has not seen; whether one of the counts is half full."""
        full = 0
        raw = self.answered.tobytes()
        if raw != self.told:
            full = together(raw)
            news.answered.append(full - together(self.told))
            self.told = raw
        if self._censored is not None:
            raw = self._censored.tobytes()
            if raw != self.told_censored:
                counts = together(raw)
                news.censored.append(counts - together(self.told_censored))
                self.told_censored, full = raw, full | counts
        if self.classes != self.told_classes:
            classes = self.classes[:]
            more = map(sub, classes, self.told_classes)
            news.classes = list(map(add, news.classes, more))
            self.told_classes = classes
        if self.waited != self.told_waited:
            waited = self.waited
            news.waited += waited - self.told_waited
            self.told_waited = waited
        return bool(full & HALF_FULL)


class _Ended:
    """A shard that nobody gets any more, and how long it is folded for yet."""

    __slots__ = ("seconds", "shard")

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.seconds = GRACE_SECONDS


class Evidence:
    """All shards of one operation, and the window that folds have filled from them."""

    __slots__ = (
        "_ended", "_ended_ever", "_freed_calls", "_labelled", "_late", "_left", "_started_ever", "at",
        "cells", "closed", "holds", "open", "settled", "shards",
    )  # fmt: skip

    def __init__(self, at: float) -> None:
        self.shards: dict[int, Shard] = {}
        self._late: Shard | None = None  # what held attempts showed: the fold's own
        self.cells: list[Closed] = []
        self._ended: list[_Ended] = []
        self.holds = Holds()
        self._labelled = Labels()
        self.forget(at)

    def forget(self, at: float) -> None:
        """Forget everything, after a fork. What is in flight is the parent's: it settles nothing here."""
        for shard in self._all():
            shard.pending.clear()
        self.at = at
        self.holds.forget()
        self._labelled.forget()
        self._late = None
        self.shards.clear()
        self.cells.clear()
        self.open: Cell | None = None
        self.closed: Closed | None = None  # by the latest tick
        self.settled = 0  # attempts in the window that are evidence
        self._ended.clear()
        self._left: News | None = None  # of shards that were freed, and not yet told of
        self._freed_calls = 0
        self._ended_ever = 0
        self._started_ever = 0

    def shard(self, thread: int) -> Shard:
        """The shard of a thread, made when it is first asked for."""
        return self.shards.setdefault(thread, Shard(self._labelled))

    def labelled(self, since: float) -> list[Labelled]:
        """Attempts that bear labels: those that ended after an instant, of the last 128, or are in flight."""
        now = self.at
        waiting = [
            Labelled(now, one.labels, None, bucket(shard.took(one, now)))
            for shard in self._all()
            for one in list(shard.pending)
            if one.labels and not one.queued
        ]
        return self._labelled.since(since, [*waiting, *self.holds.labelled(now)])

    @property
    def in_flight(self) -> int:
        """Attempts in flight now."""
        return sum(len(shard.pending) for shard in self._all()) + len(self.holds)

    @property
    def calls(self) -> int:
        """First attempts ever admitted (retries are not counted): the budget's income."""
        return self._freed_calls + sum(shard.calls for shard in self._all())

    def _all(self) -> list[Shard]:
        shards = list(self.shards.values())
        if self._ended:
            shards += [one.shard for one in self._ended]
        if self._late is not None:
            shards.append(self._late)
        return shards

    @property
    def news(self) -> bool:
        """Whether a fold may find anything but that time has passed."""
        return bool(
            self._left
            or self._late
            or self._ended
            or self.holds.known
            or any(map(_TELLS, self._all()))
        )

    def rest(self, now: float) -> Tick:
        """A tick in which nothing happened."""
        tick = Tick(now, now - self.at, 0, [0] * CLASSES, [], [], [], 0, 0.0)
        self.take(tick)
        return tick

    def fold(self, now: float) -> Tick:
        """Take what is new in every shard into the window, and return it. One fold at a time."""
        ages: list[int] = []
        queued = resting = 0
        if self.holds.known:
            self._late = self._late or Shard(self._labelled)
            ages, resting = self.holds.fold(now, self._late)
        if self._ended:
            self._free(now - self.at)
        news, self._left = self._left or News(), None
        for shard in self._all():
            if shard.tell(news):
                self._replace(shard)
            if shard.pending:
                pending = list(shard.pending)
                at_target = [attempt for attempt in pending if not attempt.queued]
                queued += len(pending) - len(at_target)
                ages += [bucket(shard.took(attempt, now)) for attempt in at_target]
        answered, censored = news.pairs()
        classes = news.classes
        classes[_SUCCESS] = sum([count for _, count in answered])
        waited = max(0.0, news.waited)
        in_flight = len(ages) + queued + resting
        # A settle that is under way may be in neither count for a moment: what was counted as started
        # is not counted again.
        self._ended_ever += sum(classes)
        started = max(0, self._ended_ever + in_flight - self._started_ever)
        self._started_ever += started
        tick = Tick(now, now - self.at, started, classes, answered, censored, ages, queued, waited)
        self.take(tick)
        return tick

    def take(self, tick: Tick) -> None:
        """Take a tick into the window."""
        now = self.at = tick.at
        while self.cells and self.cells[0].at <= now - CELL_SECONDS * CELLS:
            self.settled -= self.cells.pop(0).calls
        cell, self.closed = self.open, None
        if cell is not None and now - cell.at >= CELL_SECONDS:
            self.closed = Closed.of(cell, now)
            if now - cell.at < CELL_SECONDS * CELLS:
                self.cells.append(self.closed)
            else:
                self.settled -= self.closed.calls
            cell = None
        if cell is None:
            cell = self.open = Cell(now)
        cell.add(tick)
        self.settled += sum(tick.classes) - tick.classes[OutcomeClass.LOCAL]

    def _free(self, seconds: float) -> None:
        """Free the shards that nobody writes into any more."""
        over: list[Shard] = []
        for one in self._ended:
            one.seconds -= min(
                seconds, 1.0
            )  # who stood still for an hour may have been in its midst
            if one.seconds <= 0 and not one.shard.pending:
                over.append(one.shard)
        if over:
            self._ended = [one for one in self._ended if one.shard not in over]
            self._drop(over)

    def _drop(self, shards: list[Shard]) -> None:
        self._left = self._left or News()
        for shard in shards:
            shard.tell(self._left)
            self._left.squeeze()
            self._freed_calls += shard.calls

    def _replace(self, full: Shard) -> None:
        """Long before a count would overflow, its thread gets a new shard."""
        for thread in [thread for thread, shard in list(self.shards.items()) if shard is full]:
            self._ended.append(_Ended(self.shards.pop(thread)))
        if self._late is full:
            self._ended.append(_Ended(full))
            self._late = None

    def retire(self, alive: Callable[[], frozenset[int]]) -> None:
        """Free the shards of threads that have ended; `alive` tells the numbers of those that have not.

        A thread that has taken over the number of a dead one may have got its shard in that very moment:
        then it is folded for a while yet.
        """
        before = alive()
        gone = [(t, self.shards.pop(t)) for t in list(self.shards) if t not in before]
        if not gone:
            return
        after = alive()
        unsure = [shard for thread, shard in gone if thread in after or shard.pending]
        self._ended += [_Ended(shard) for shard in unsure]
        self._drop([shard for _, shard in gone if shard not in unsure])

    def window(self) -> Cell:
        """The last 25 to 30 seconds as one cell."""
        window = Cell(self.began)
        for cell in self.cells:
            window.merge(cell.open())
        if self.open is not None:
            window.merge(self.open)
        return window

    @property
    def began(self) -> float:
        """The instant at which the window begins."""
        if self.cells:
            return self.cells[0].at
        return self.open.at if self.open is not None else self.at
