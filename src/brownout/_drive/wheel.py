"""One shared timer for all attempts on an event loop.

A time-out almost never fires, so adding and removing one must cost little: an attempt that begins is put
into one table, and is nearly always gone when the loop's single timer fires next. Those that are not are
laid into slots of 10 ms then, by their deadlines; what is due is cancelled, and the timer set for the
earliest slot. It runs out, and is not set again, when no attempt waits. The wheel belongs to that timer,
so it ends with its loop.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from brownout._drive.clock import clock

if TYPE_CHECKING:
    import asyncio

    from brownout._core.evidence import Attempt

SLOT_SECONDS = 0.01
MOST_THREADS = 1024
_Known = tuple["ReferenceType[asyncio.AbstractEventLoop]", "ReferenceType[Wheel]"]
_last: dict[int, _Known] = {}  # by thread: nearly always the loop of the call before
_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[Wheel]] = WeakKeyDictionary()


class Wheel:
    """The attempts of one loop, with the tasks to cancel when their time is up."""

    __slots__ = ("__weakref__", "_handle", "_next", "before", "fresh", "slots")

    def __init__(self) -> None:
        self.fresh: dict[Attempt, asyncio.Task[Any]] = {}  # those that began since the timer fired
        self.slots: dict[int, dict[Attempt, asyncio.Task[Any]]] = {}  # the others; none is empty
        self.before = inf  # a deadline before this instant needs an earlier timer
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

    def arm(self, loop: asyncio.AbstractEventLoop, slot: int) -> None:
        """Set the timer for a slot, unless it is set for an earlier one."""
        if self._handle is not None:
            if self._next <= slot:
                return
            self._handle.cancel()
        self._next = slot
        self.before = (slot - 1) * SLOT_SECONDS
        self._handle = loop.call_later(slot * SLOT_SECONDS - clock.now(), self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        self.before = inf
        now = clock.now()
        for attempt, task in list(self.fresh.items()):
            if attempt.deadline < inf:  # the others wait for nothing
                del self.fresh[attempt]
                self.slots.setdefault(_slot(attempt.deadline), {})[attempt] = task
        for slot in sorted(slot for slot in self.slots if slot * SLOT_SECONDS <= now):
            for attempt, task in self.slots.pop(slot).items():
                attempt.expired = True
                task.cancel()
        if self.slots:
            self.arm(loop, min(self.slots))


def _slot(deadline: float) -> int:
    return int(deadline / SLOT_SECONDS) + 1


def wheel_for(loop: asyncio.AbstractEventLoop, thread: int, deadline: float) -> Wheel:
    """The wheel of the loop that runs in a thread, with its timer set for a deadline that is not infinite.

    Put the attempt into `fresh` with its task, and take it out at its end.
    """
    known = _last.get(thread)
    found = known[1]() if known is not None and known[0]() is loop else None
    if found is None:
        found = wheel(loop)
        if len(_last) >= MOST_THREADS:
            _last.clear()
        _last[thread] = ref(loop), ref(found)
    if deadline < found.before and deadline < inf:
        found.arm(loop, _slot(deadline))
    return found


def wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    """The wheel of a loop, made when it is needed; its timer keeps it, and it ends with its loop."""
    known = _wheels.get(loop)
    found = known() if known is not None else None
    if found is None:
        found = Wheel()
        _wheels[loop] = ref(found)
    return found
