"""How late this process was itself: time in which nobody could have taken an answer.

A loop that is blocked, or a process that gets no processor, sees late what came in time. So each thread that
runs a loop keeps a beat while attempts are in flight; a beat that comes late, or is due and has not come, is
a *stall*. What an attempt waited in stalls is not its target's time: it is taken off when the attempt is
settled, and from the age of one in flight. A tick of which much was stalled is not held against the target,
nor learned as usual. Suspect yourself first (Lifeguard, DSN 2018).
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import bucket
from brownout._core.words import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout._core.baseline import Baseline
    from brownout._core.cell import Tick
    from brownout._core.evidence import Shard

STALLS = 64  # that are remembered; older ones are longer ago than attempts are likely to last
OWN_SECONDS = 2.0  # of which is told how much was stalled
STALLED_SHARE = 0.1  # of a tick or a window: then it says more of us than of the target
STALLED_SECONDS = 0.1  # in one tick: then what it is in is not learned
POOL_SECONDS = (
    0.25  # a wait for our own pool, of one that still waits, that is told as our own trouble
)
TOLERANCE_SECONDS = 0.01  # what a timer may be late: the resolution of the wheel


def _always() -> bool:
    return True


class Lateness:
    """The stalls of one thread. Its own beat writes, and anybody may read.

    `due` is the instant after which a beat that has not come is late (infinite while none is wanted), `until`
    the end of the last stall. One that is due matters only while something is in flight: a loop that has
    ended keeps no beat. `busy` says whether there is.
    """

    __slots__ = ("_alive", "_stalls", "busy", "due", "tolerance", "until")

    def __init__(self, tolerance: float = TOLERANCE_SECONDS) -> None:
        self.tolerance = tolerance
        self.busy: Callable[[], bool] = _always
        self.due = inf
        self._alive = -inf
        self.until = -inf
        self._stalls: deque[tuple[float, float]] = deque(maxlen=STALLS)

    def expect(self, beat: float, now: float) -> None:
        """The next beat is to come at that instant; now the thread is known to run."""
        self._alive = now
        self.due = beat + self.tolerance

    def rest(self) -> None:
        """No beat is wanted."""
        self.due = inf

    def beat(self, now: float) -> None:
        """The beat has come."""
        if now > self.due:
            self._stalls.append((self._start(self.due, now), now))
            self.until = now
        self.due = inf

    def lost(self, began: float, now: float) -> float:
        """How many of the seconds from `began` to `now` were stalled, also by what goes on."""
        stalled = 0.0
        if self.until > began:
            for start, end in reversed(tuple(self._stalls)):
                if end <= began:
                    break
                stalled += max(0.0, min(end, now) - max(start, began))
        due = self.due
        if now > due and self.busy():
            stalled += max(0.0, now - max(self._start(due, now), began))
        return stalled

    def _start(self, due: float, now: float) -> float:
        """When a stall began that lasts until now: before the beat that is missed, at some time.

        As long before it as it is late by now, if it was not known to run since.
        """
        beat = due - self.tolerance
        return max(self._alive, 2 * beat - now)

    def settle(self, began: float, now: float) -> float:
        """The same, on the thread itself: whoever is there before a beat that is due notices the stall."""
        if now > self.due:
            self.beat(now)
        return self.lost(began, now)


def lost(shards: Sequence[Shard], began: float, now: float) -> float:
    """How many of the seconds since `began` our own threads stood still, the worst of them."""
    return max((one.late.lost(began, now) for one in shards if one.late), default=0.0)


def own(shards: Sequence[Shard], now: float) -> str:
    """What this process itself was in trouble with lately; "" if nothing."""
    told: list[str] = []
    stalled = lost(shards, now - OWN_SECONDS, now)
    if stalled > STALLED_SHARE * OWN_SECONDS:
        span = f"{seconds(stalled)} of the last {seconds(OWN_SECONDS)}"
        told.append(f"this process itself stood still for {span}")
    queued = [attempt.began for one in shards for attempt in list(one.pending) if attempt.queued]
    wait = now - min(queued, default=now)
    if wait > POOL_SECONDS:
        told.append(f"a call has waited {seconds(wait)} for our own pool, and was not sent yet")
    return "; ".join(told)


def without(tick: Tick, base: Baseline) -> Tick:
    """A tick of which much was stalled, without what it says of how long calls take.

    Answers and failures count as such, or the shares would be wrong; a time-out counts only if the target
    had its time.
    """
    level = base.left
    answers = tick.classes[OutcomeClass.SUCCESS]
    usual = tick.answered if base.cold else [(bucket(base.p50), answers)] * bool(answers)
    waited = sum(count for index, count in tick.censored if level[index])
    classes = list(tick.classes)
    classes[OutcomeClass.UNKNOWN] = min(classes[OutcomeClass.UNKNOWN], waited)
    return tick._replace(answered=usual, classes=classes)
