"""One shared timer for all attempts on an event loop.

A time-out almost never fires, so adding and removing one must cost little: attempts are put into
slots of 10 ms, and the loop has a single timer, for the earliest slot. It runs out, and is not set
again, when no attempt waits. The wheel belongs to that timer, so it ends with its loop.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

if TYPE_CHECKING:
    import asyncio

    from brownout._core.evidence import Attempt

SLOT_SECONDS = 0.01
SWEEP_SLOTS = 512
_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[Wheel]] = WeakKeyDictionary()


class Wheel:
    """The attempts of one loop, by the slot in which their time is up."""

    __slots__ = ("__weakref__", "_handle", "_heap", "_next", "_slots", "_sweep_at")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Attempt, asyncio.Task[Any]]] = {}
        self._heap: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._next = -1
        self._sweep_at = SWEEP_SLOTS

    def add(
        self,
        attempt: Attempt,
        task: asyncio.Task[Any],
        loop: asyncio.AbstractEventLoop,
        left: float,
    ) -> int:
        """Cancel `task` in `left` seconds, unless the attempt is removed; returns its slot."""
        slot = int((loop.time() + left) / SLOT_SECONDS) + 1
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting[attempt] = task
            return slot
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        self._slots[slot] = {attempt: task}
        heappush(self._heap, slot)
        if self._handle is None or slot < self._next:
            self._arm(loop)
        return slot

    def remove(self, attempt: Attempt, slot: int) -> None:
        """The attempt has ended."""
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.pop(attempt, None)

    def _sweep(self) -> None:
        """Forget the slots whose attempts have all ended: an hour has 360,000."""
        self._slots = {slot: waiting for slot, waiting in self._slots.items() if waiting}
        self._heap = list(self._slots)
        heapify(self._heap)
        self._sweep_at = max(SWEEP_SLOTS, 2 * len(self._heap))

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = self._heap[0]
        self._handle = loop.call_at(self._next * SLOT_SECONDS, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        now = loop.time()
        # Slots that are due, and those whose attempts have all ended.
        while self._heap and (
            self._heap[0] * SLOT_SECONDS <= now or not self._slots[self._heap[0]]
        ):
            for attempt, task in self._slots.pop(heappop(self._heap)).items():
                attempt.expired = True
                task.cancel()
        if self._heap:
            self._arm(loop)


def wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    """The wheel of a loop, made when it is needed; its timer and the waiting attempts keep it."""
    known = _wheels.get(loop)
    found = known() if known is not None else None
    if found is None:
        found = Wheel()
        _wheels[loop] = ref(found)
    return found
