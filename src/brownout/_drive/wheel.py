"""One shared timer for all attempts on an event loop.

A time-out almost never fires, so adding and removing one must cost little: attempts are put into
slots of 10 ms, and the loop has a single timer, for the earliest slot. It runs out, and is not set
again, when no attempt waits. The wheel belongs to that timer, so it ends with its loop.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from brownout._drive.clock import clock

if TYPE_CHECKING:
    import asyncio

    from brownout._core.evidence import Attempt

SLOT_SECONDS = 0.01
SWEEP_SLOTS = 512
MOST_THREADS = 1024
_Known = tuple["ReferenceType[asyncio.AbstractEventLoop]", "ReferenceType[Wheel]"]
_last: dict[int, _Known] = {}  # by thread: nearly always the loop of the call before
_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[Wheel]] = WeakKeyDictionary()


class Wheel:
    """The attempts of one loop, by the slot of the clock in which their time is up."""

    __slots__ = ("__weakref__", "_handle", "_heap", "_next", "_sweep_at", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, dict[Attempt, asyncio.Task[Any]]] = {}
        self._heap: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._next = -1
        self._sweep_at = SWEEP_SLOTS

    def open(self, slot: int, loop: asyncio.AbstractEventLoop) -> dict[Attempt, asyncio.Task[Any]]:
        """A slot that was not there: its attempts and the tasks to cancel."""
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        waiting: dict[Attempt, asyncio.Task[Any]] = {}
        self.slots[slot] = waiting
        heappush(self._heap, slot)
        if self._handle is None or slot < self._next:
            self._arm(loop)
        return waiting

    def _sweep(self) -> None:
        """Forget the slots whose attempts have all ended: an hour has 360,000."""
        self.slots = {slot: waiting for slot, waiting in self.slots.items() if waiting}
        self._heap = list(self.slots)
        heapify(self._heap)
        self._sweep_at = max(SWEEP_SLOTS, 2 * len(self._heap))

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = self._heap[0]
        self._handle = loop.call_later(self._next * SLOT_SECONDS - clock.now(), self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        now = clock.now()
        # Slots that are due, and those whose attempts have all ended.
        while self._heap and (self._heap[0] * SLOT_SECONDS <= now or not self.slots[self._heap[0]]):
            for attempt, task in self.slots.pop(heappop(self._heap)).items():
                attempt.expired = True
                task.cancel()
        if self._heap:
            self._arm(loop)


def waiting(
    loop: asyncio.AbstractEventLoop, thread: int, deadline: float
) -> dict[Attempt, asyncio.Task[Any]]:
    """Where an attempt with that deadline waits: put it in with its task, and take it out at its end.

    One without a deadline waits nowhere: what it is put into is forgotten.
    """
    if deadline == inf:
        return {}
    known = _last.get(thread)
    found = known[1]() if known is not None and known[0]() is loop else None
    if found is None:
        found = wheel(loop)
        if len(_last) >= MOST_THREADS:
            _last.clear()
        _last[thread] = ref(loop), ref(found)
    slot = int(deadline / SLOT_SECONDS) + 1
    others = found.slots.get(slot)
    return found.open(slot, loop) if others is None else others


def wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    """The wheel of a loop, made when it is needed; its timer keeps it, and it ends with its loop."""
    known = _wheels.get(loop)
    found = known() if known is not None else None
    if found is None:
        found = Wheel()
        _wheels[loop] = ref(found)
    return found
