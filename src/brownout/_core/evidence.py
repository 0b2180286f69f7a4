"""What one observer knows of one operation of a target.

Calls write into a *shard*, one a thread, without a lock: counts there only ever grow, and attempts in
flight stand in its table of pending attempts. A *fold* adds up all shards and takes what is new since
the last fold as one *tick*. So a fold can't lose a count, and it sees a hang while it lasts, also when
no new call is made. The shard of a thread that has ended is freed, and so is one whose 32-bit counts
are half full; what it counted stays in the sum. Everything here adds up: evidence of two observers
merges by sums.
"""

from __future__ import annotations

from collections import deque
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.deadline import DeadlineHeader
from brownout._core.held import Holds
from brownout._core.outcome import CENSORED, OutcomeClass, Phase, Shown
from brownout._core.sketch import HALF, Sketch, bucket, lanes, least, unpack, zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout._core.breaker import Gate
    from brownout._core.held import Hold
    from brownout._core.late import Lateness

CLASSES = len(OutcomeClass)
CELL_SECONDS = 5.0
GRACE_SECONDS = 10.0
CELLS = 6  # the window is the last 25 to 30 s
_SUCCESS = OutcomeClass.SUCCESS
_WRITTEN = (DeadlineHeader.ENVOY,)


class Attempt:
    """One attempt in flight: admitted, not yet settled. Adapters tell it how far it has come.

    `began` and `deadline` are monotonic instants; `phase` is how far it has come for certain. An adapter
    that has a pool of its own says `waiting()` before and `waited(seconds)` after the wait for a
    connection, which is not the target's time; then `sent()` and `receiving()`.
    """

    # Most attempts change none of these: as defaults of the class they cost them nothing.
    waited_seconds = 0.0
    phase = Phase.SENDING
    queued = False  # waiting for our own pool
    probe: tuple[Gate, int] | None = None  # the breaker's, if it is one, and its lease
    inherited = False  # the deadline is the caller's, shorter than the guard's time-out
    expired = False  # our timer ended it
    shown: Shown | None = None
    key: str | None = None  # of the call, where the attempt is handed out
    keep: Callable[[Attempt], Hold]  # set where an attempt is handed out, so that it can be held

    def __init__(self, shard: Shard, began: float, deadline: float) -> None:
        self.shard = shard
        self.began = began
        self.deadline = deadline

    def waiting(self) -> None:
        """It waits for a connection of our own pool; nothing has been sent."""
        self.queued = True
        self.phase = Phase.NOT_SENT

    def waited(self, seconds: float) -> None:
        """The wait for the pool is over and took so many seconds; nothing has been sent yet."""
        self.queued = False
        self.waited_seconds = seconds

    def sent(self) -> None:
        """From now on the target may have got it."""
        self.phase = Phase.SENT

    def receiving(self) -> None:
        """An answer has begun to arrive."""
        self.phase = Phase.RECEIVING

    def headers(self, now: float, written: Sequence[DeadlineHeader] = _WRITTEN) -> dict[str, str]:
        """What to tell the next hop: the time that is left at the monotonic instant `now`."""
        told = {header.name: header.write(self.deadline - now) for header in written}
        return {name: value for name, value in told.items() if value is not None}

    def settle(self, class_: OutcomeClass, retry_after: float | None = None) -> None:
        """Say what the attempt showed, where its end (a value or an exception) does not say it."""
        self.shown = Shown.of(class_, retry_after)

    def hold(self) -> Hold:
        """Say that the attempt goes on when its function returns: its answer is still to be read.

        It stays in flight, with its permit, until the Hold ends it; that is to be kept by what reads the
        answer. Do it last: what the function raises afterwards is not told to the guard. Raises
        RuntimeError if the attempt is over already, or held.
        """
        return self.keep(self)


class Shard:
    """What one thread's attempts at one operation showed. Written by that thread, read by folds.

    Successes are counted by latency alone (`answered`), all else by class as well; `repeats` are the
    attempts that were not a call's first.
    """

    __slots__ = ("answered", "censored", "classes", "late", "pending", "repeats", "waited")

    def __init__(self) -> None:
        self.late: Lateness | None = None  # of its thread, where a loop runs there
        self.pending: dict[Attempt, None] = {}
        self.repeats = 0
        self.classes = [0] * CLASSES
        self.answered = zeros()
        self.censored = zeros()
        self.waited = 0.0

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
    def together(self) -> float:
        """How many calls were in flight at one moment: at its end, or on average (Little's law)."""
        ended = (*self.answered, *self.censored)
        busy = sum(min(least(index), self.seconds) * count for index, count in ended)
        now = len(self.ages) + self.queued
        calls = sum(self.classes) - self.classes[OutcomeClass.LOCAL]
        return max(now, min(busy / max(self.seconds, 1e-3), now + calls))


class Cell:
    """A few seconds of one operation: counts by class, latencies, attempts started, seconds of pool wait."""

    __slots__ = ("at", "classes", "sketch", "started", "waited")

    def __init__(self, at: float) -> None:
        self.at = at
        self.classes = [0] * CLASSES
        self.sketch = Sketch()
        self.started = 0
        self.waited = 0.0

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        for index, count in enumerate(tick.classes):
            self.classes[index] += count
        self.sketch.take(tick.answered, tick.censored)
        self.started += tick.started
        self.waited += tick.waited

    def merge(self, other: Cell) -> None:
        """Add another cell."""
        for index, count in enumerate(other.classes):
            self.classes[index] += count
        self.sketch.merge(other.sketch)
        self.started += other.started
        self.waited += other.waited

    @property
    def calls(self) -> int:
        """Settled attempts that are evidence: all but our own refusals."""
        return sum(self.classes) - self.classes[OutcomeClass.LOCAL]


class _Sum:
    """What shards have counted, added up."""

    __slots__ = ("answered", "calls", "censored", "classes", "waited")

    def __init__(self) -> None:
        self.classes = [0] * CLASSES
        self.answered = 0  # lanes of the sketch
        self.censored = 0
        self.waited = 0.0
        self.calls = 0

    def copy(self) -> _Sum:
        """The same, to add to."""
        new = _Sum()
        new.classes, new.answered, new.censored = self.classes, self.answered, self.censored
        new.waited = self.waited
        return new

    def take(self, shard: Shard) -> bool:
        """Add what a shard has counted; whether one of its counts is half full."""
        answered, censored = lanes(shard.answered), lanes(shard.censored)
        self.answered += answered
        self.censored += censored
        self.classes = list(map(add, self.classes, shard.classes))
        self.waited += shard.waited
        return bool((answered | censored) & HALF)


class _Ended:
    """A shard that nobody gets any more, and how long it is folded for yet."""

    __slots__ = ("seconds", "shard")

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.seconds = GRACE_SECONDS


class Evidence:
    """All shards of one operation, and the window that folds have filled from them."""

    __slots__ = (
        "_ended", "_ended_ever", "_freed", "_late", "_started_ever", "_taken", "at", "cells", "holds",
        "queued_seconds", "shards",
    )  # fmt: skip

    def __init__(self, at: float) -> None:
        self.shards: dict[int, Shard] = {}
        self._late: Shard | None = None  # what held attempts showed: the fold's own
        self.cells: deque[Cell] = deque(maxlen=CELLS)
        self._ended: list[_Ended] = []
        self.holds = Holds()
        self.forget(at)

    def forget(self, at: float) -> None:
        """Forget everything, after a fork. What is in flight is the parent's: it settles nothing here."""
        for shard in self._all():
            shard.pending.clear()
        self.at = at
        self.holds.forget()
        self._late = None
        self.shards.clear()
        self.cells.clear()
        self._ended.clear()
        self._freed = _Sum()
        self._taken = _Sum()
        self._ended_ever = 0
        self._started_ever = 0
        self.queued_seconds = (
            0.0  # how long the first of those that wait for our own pool has waited
        )

    def shard(self, thread: int) -> Shard:
        """The shard of a thread, made when it is first asked for."""
        return self.shards.setdefault(thread, Shard())

    @property
    def in_flight(self) -> int:
        """Attempts in flight now."""
        return sum(len(shard.pending) for shard in self._all()) + len(self.holds)

    def lost(self, began: float, now: float) -> float:
        """How many of the seconds since `began` our own threads stood still, the worst of them."""
        return max((one.late.lost(began, now) for one in self._all() if one.late), default=0.0)

    @property
    def settled(self) -> int:
        """Settled attempts in the window that are evidence."""
        return sum(cell.calls for cell in self.cells)

    @property
    def calls(self) -> int:
        """First attempts ever admitted (retries are not counted): the budget's income."""
        return self._freed.calls + sum(shard.calls for shard in self._all())

    def _all(self) -> list[Shard]:
        ended = [one.shard for one in self._ended]
        return [*list(self.shards.values()), *ended, *([self._late] if self._late else [])]

    def fold(self, now: float) -> Tick:
        """Take what is new in every shard into the window, and return it. One fold at a time."""
        ages: list[int] = []
        queued = resting = 0
        self.queued_seconds = 0.0
        if self.holds.known:
            self._late = self._late or Shard()
            ages, resting = self.holds.fold(now, self._late)
        self._free(now - self.at)
        old, new = self._taken, self._freed.copy()
        for shard in self._all():
            if new.take(shard):
                self._replace(shard)
            pending = list(shard.pending)
            at_target = [attempt for attempt in pending if not attempt.queued]
            if len(at_target) < len(pending):
                began = min(attempt.began for attempt in pending if attempt.queued)
                self.queued_seconds = max(self.queued_seconds, now - began)
            queued += len(pending) - len(at_target)
            ages += [bucket(shard.took(attempt, now)) for attempt in at_target]
        self._taken = new
        classes = [n - o for n, o in zip(new.classes, old.classes, strict=True)]
        answered = unpack(new.answered - old.answered)
        censored = unpack(new.censored - old.censored)
        classes[_SUCCESS] = sum(count for _, count in answered)
        waited = max(0.0, new.waited - old.waited)
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
            self.cells.popleft()
        if not self.cells or now - self.cells[-1].at >= CELL_SECONDS:
            self.cells.append(Cell(now))
        self.cells[-1].add(tick)

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
        for shard in shards:
            self._freed.take(shard)
            self._freed.calls += shard.calls

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
        whole = Cell(self.at)
        for cell in self.cells:
            whole.merge(cell)
        return whole
