"""One shared timer for all attempts on an event loop.

A time-out almost never fires, so adding and removing one must cost little: an attempt that begins is put
into one table, and is nearly always gone when the loop's single timer fires next. Those that are not are
laid into slots of 10 ms then, by their deadlines; what is due is cancelled, and the timer set for the
earliest slot. It runs out, and is not set again, when no attempt waits. The wheel belongs to that timer,
so it ends with its loop.

While attempts are in flight it fires twenty times a second, also if none of them is due: a beat, by which the
thread knows how late it is itself (`Lateness`).
"""

from __future__ import annotations

from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from brownout._core.late import Lateness
from brownout._drive.clock import clock

if TYPE_CHECKING:
    import asyncio

    from brownout._core.attempt import Attempt

SLOT_SECONDS = 0.01
BEAT_SECONDS = 0.05
MOST_THREADS = 1024
_Known = tuple["ReferenceType[asyncio.AbstractEventLoop]", "ReferenceType[Wheel]"]
_late: dict[
    int, Lateness
] = {}  # by thread: two loops of one, one after the other, have it in common
_last: dict[int, _Known] = {}  # by thread: nearly always the loop of the call before
_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[Wheel]] = WeakKeyDictionary()


class _Busy:
    """Whether attempts are in flight on a wheel, without keeping them alive."""

    __slots__ = ("_wheel",)

    def __init__(self, wheel: ReferenceType[Wheel]) -> None:
        self._wheel = wheel

    def __call__(self) -> bool:
        found = self._wheel()
        return found is not None and bool(found.fresh or found.slots)


class Wheel:
    """The attempts of one loop, with the tasks to cancel when their time is up."""

    __slots__ = ("__weakref__", "_handle", "_next", "before", "fresh", "late", "slots")

    def __init__(self, late: Lateness) -> None:
        self.late = late
        self.late.rest()
        self.fresh: dict[Attempt, asyncio.Task[Any]] = {}  # those that began since the timer fired
        self.slots: dict[int, dict[Attempt, asyncio.Task[Any]]] = {}  # the others; none is empty
        self.before = inf  # a deadline before this instant needs an earlier timer
        late.busy = _Busy(ref(self))
        self._handle: asyncio.TimerHandle | None = None
        self._next = 0

    def take_out(self, attempt: Attempt) -> None:
        """Forget an attempt that has ended, or that was cancelled."""
        if self.fresh.pop(attempt, None) is None:
            slot = _slot(attempt.deadline)
            waiting = self.slots.get(slot, {})
            waiting.pop(attempt, None)
            if not waiting:
                self.slots.pop(slot, None)

    def arm(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        """Set the timer for a deadline or the next beat, unless it is set for something earlier."""
        now = clock.now()
        slot = _slot(min(deadline, now + BEAT_SECONDS))
        if self._handle is not None:
            if self._next <= slot:
                return
            self._handle.cancel()
        self._next = slot
        self.before = (slot - 1) * SLOT_SECONDS
        instant = slot * SLOT_SECONDS
        self.late.expect(max(instant, now), now)
        self._handle = loop.call_later(instant - now, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        self.before = inf
        now = clock.now()
        self.late.beat(now)
        if self._nearest() * SLOT_SECONDS <= now:
            self._end(now)
        if self.slots or self.fresh:
            self.arm(loop, (self._nearest() - 0.5) * SLOT_SECONDS)

    def _nearest(self) -> float:
        """The slot that is due first; infinite if none is."""
        deadline = min((attempt.deadline for attempt in self.fresh), default=inf)
        return min(min(self.slots, default=inf), _slot(deadline) if deadline < inf else inf)

    def _end(self, now: float) -> None:
        """Cancel what is due."""
        for attempt, task in list(self.fresh.items()):
            if attempt.deadline < inf:  # the others wait for nothing
                del self.fresh[attempt]
                self.slots.setdefault(_slot(attempt.deadline), {})[attempt] = task
        for slot in sorted(slot for slot in self.slots if slot * SLOT_SECONDS <= now):
            for attempt, task in self.slots.pop(slot).items():
                attempt.expired = True
                task.cancel()


def rest() -> None:
    """After a fork: no loop of ours runs yet, so that none is late."""
    for late in _late.values():
        late.rest()


def _slot(deadline: float) -> int:
    return int(deadline / SLOT_SECONDS) + 1


def wheel_for(loop: asyncio.AbstractEventLoop, thread: int, deadline: float) -> Wheel:
    """The wheel of the loop that runs in a thread, with its timer set for a deadline, or for a beat.

    Put the attempt into `fresh` with its task, and take it out at its end.
    """
    known = _last.get(thread)
    found = known[1]() if known is not None and known[0]() is loop else None
    if found is None:
        found = wheel(loop)
        if len(_last) >= MOST_THREADS:
            _last.clear()
        _last[thread] = ref(loop), ref(found)
    if deadline <= found.before:
        found.arm(loop, deadline)
    return found


def wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    """The wheel of a loop, made when it is needed; its timer keeps it, and it ends with its loop."""
    known = _wheels.get(loop)
    found = known() if known is not None else None
    if found is None:
        if len(_late) >= MOST_THREADS:
            _late.clear()
        found = Wheel(_late.setdefault(get_ident(), Lateness()))
        _wheels[loop] = ref(found)
    return found
