"""What one observer knows of one operation of a target.

Calls write into a *shard*, one a thread, without a lock: counts there only ever grow, and attempts in
flight stand in its table of pending attempts. A *fold* reads all shards and takes what is new since
the last fold as one *tick*. So a fold can't lose a count, and it sees a hang while it lasts, also when
no new call is made. Everything here adds up: evidence of two observers merges by sums.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.deadline import DeadlineHeader
from brownout._core.held import Holds
from brownout._core.outcome import CENSORED, OutcomeClass, Phase, Shown
from brownout._core.sketch import BUCKETS, Sketch, bucket, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout._core.breaker import Gate
    from brownout._core.held import Hold

CLASSES = len(OutcomeClass)
CELL_SECONDS = 5.0
GRACE_SECONDS = 10.0
CELLS = 6  # the window is the last 25 to 30 s
_SUCCESS = OutcomeClass.SUCCESS
_ZEROS = bytes(8 * BUCKETS)
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


class _Seen(NamedTuple):
    """A shard as the last fold saw it."""

    classes: list[int]
    answered: array[int]
    censored: array[int]
    waited: float


_UNSEEN = _Seen([0] * CLASSES, array("Q", _ZEROS), array("Q", _ZEROS), 0.0)


class Shard:
    """What one thread's attempts at one operation showed. Written by that thread, read by folds.

    Successes are counted by latency alone (`answered`), all else by class as well; `repeats` are the
    attempts that were not a call's first.
    """

    __slots__ = ("answered", "censored", "classes", "pending", "repeats", "seen", "waited")

    def __init__(self) -> None:
        self.pending: dict[Attempt, None] = {}
        self.repeats = 0
        self.classes = [0] * CLASSES
        self.answered = array("Q", _ZEROS)
        self.censored = array("Q", _ZEROS)
        self.waited = 0.0
        self.seen = _UNSEEN  # the fold's, not the thread's

    def settle(self, attempt: Attempt, class_: OutcomeClass, now: float) -> bool:
        """Count what an attempt showed; False if it had been settled before (and nothing is counted)."""
        try:
            del self.pending[attempt]
        except KeyError:
            return False
        seconds = now - attempt.began - attempt.waited_seconds
        if class_ is _SUCCESS:
            self.answered[bucket(seconds)] += 1
        else:
            if class_ in CENSORED:
                self.censored[bucket(seconds)] += 1
            self.classes[class_] += 1
        self.waited += attempt.waited_seconds
        return True

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
        busy = sum(middle(index) * count for index, count in (*self.answered, *self.censored))
        now = len(self.ages) + self.queued
        ended = sum(self.classes) - self.classes[OutcomeClass.LOCAL]
        return max(now, min(busy / max(self.seconds, 1e-3), now + ended))


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
        for index, count in tick.answered:
            self.sketch.answered[index] += count
        for index, count in tick.censored:
            self.sketch.censored[index] += count
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


def _news(new: array[int], old: array[int]) -> list[tuple[int, int]]:
    if new == old:
        return []
    return [(index, n - o) for index, (n, o) in enumerate(zip(new, old, strict=True)) if n != o]


class Evidence:
    """All shards of one operation, and the window that folds have filled from them."""

    __slots__ = (
        "_calls", "_ended", "_ended_ever", "_late", "_started_ever", "at", "cells", "holds", "shards",
    )  # fmt: skip

    def __init__(self, at: float) -> None:
        self.shards: dict[int, Shard] = {}
        self._late: Shard | None = None  # what held attempts showed: the fold's own
        self.cells: deque[Cell] = deque(maxlen=CELLS)
        self._ended: list[tuple[float, Shard]] = []
        self.forget(at)

    def forget(self, at: float) -> None:
        """Forget everything, after a fork. What is in flight is the parent's: it settles nothing here."""
        for shard in self._all():
            shard.pending.clear()
        self.at = at
        self.holds = Holds()
        self._late = None
        self.shards.clear()
        self.cells.clear()
        self._ended.clear()
        self._calls = 0
        self._ended_ever = 0
        self._started_ever = 0

    def shard(self, thread: int) -> Shard:
        """The shard of a thread, made when it is first asked for."""
        return self.shards.setdefault(thread, Shard())

    @property
    def in_flight(self) -> int:
        """Attempts in flight now."""
        return sum(len(shard.pending) for shard in self._all()) + len(self.holds)

    @property
    def settled(self) -> int:
        """Settled attempts in the window that are evidence."""
        return sum(cell.calls for cell in self.cells)

    @property
    def calls(self) -> int:
        """First attempts ever admitted (retries are not counted): the budget's income."""
        return self._calls + sum(shard.calls for shard in self._all())

    def _all(self) -> list[Shard]:
        ended = [shard for _, shard in self._ended]
        return [*list(self.shards.values()), *ended, *([self._late] if self._late else [])]

    def fold(self, now: float) -> Tick:
        """Take what is new in every shard into the window, and return it. One fold at a time."""
        classes = [0] * CLASSES
        answered: list[tuple[int, int]] = []
        censored: list[tuple[int, int]] = []
        ages: list[int] = []
        queued = resting = 0
        waited = 0.0
        if self.holds.known:
            self._late = self._late or Shard()
            ages, resting = self.holds.fold(now, self._late)
        for shard in self._all():
            old = shard.seen
            new = _Seen(shard.classes[:], shard.answered[:], shard.censored[:], shard.waited)
            for index in range(CLASSES):
                classes[index] += new.classes[index] - old.classes[index]
            news = _news(new.answered, old.answered)
            answered += news
            classes[_SUCCESS] += sum(count for _, count in news)
            censored += _news(new.censored, old.censored)
            waited += new.waited - old.waited
            pending = list(shard.pending)
            at_target = [attempt for attempt in pending if not attempt.queued]
            queued += len(pending) - len(at_target)
            ages += [bucket(now - attempt.began - attempt.waited_seconds) for attempt in at_target]
            shard.seen = new
        in_flight = len(ages) + queued + resting
        # A settle that is under way may be in neither count for a moment: what was counted as started
        # is not counted again.
        self._ended_ever += sum(classes)
        started = max(0, self._ended_ever + in_flight - self._started_ever)
        self._started_ever += started
        tick = Tick(now, now - self.at, started, classes, answered, censored, ages, queued, waited)
        self.at = now
        while self.cells and self.cells[0].at <= now - CELL_SECONDS * CELLS:
            self.cells.popleft()
        if not self.cells or now - self.cells[-1].at >= CELL_SECONDS:
            self.cells.append(Cell(now))
        self.cells[-1].add(tick)
        return tick

    def retire(self, alive: frozenset[int], now: float) -> None:
        """Free the shards of threads that have ended.

        They are folded for a while yet: a thread that took over the number of a dead one may have got its
        shard in that very moment.
        """
        for thread in [thread for thread in list(self.shards) if thread not in alive]:
            self._ended.append((now + GRACE_SECONDS, self.shards.pop(thread)))
        for end, shard in self._ended:
            if end <= now and not shard.pending:
                self._calls += shard.calls
        self._ended = [(end, shard) for end, shard in self._ended if end > now or shard.pending]

    def window(self) -> Cell:
        """The last 25 to 30 seconds as one cell."""
        whole = Cell(self.at)
        for cell in self.cells:
            whole.merge(cell)
        return whole
