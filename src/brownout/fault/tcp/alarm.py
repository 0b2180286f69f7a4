"""Wakes at an instant, to a tenth of a millisecond where the kernel has timer descriptors.

Timers of the event loops tick in whole milliseconds (epoll's unit; libuv caches its clock besides): a
latency of 1 ms would become one of 1 to 2 ms.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Alarm", "Wake"]

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval (never used here), and the instant."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Wake:
    """One call that is due, unless it is cancelled."""

    __slots__ = ("call", "due", "order")

    def __init__(self, due: float, order: int, call: Callable[[], object]) -> None:
        self.due = due
        self.order = order
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Don't call."""
        self.call = None

    def ring(self) -> None:
        """Call, once."""
        call, self.call = self.call, None
        if call is not None:
            call()

    def __lt__(self, other: Wake) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Alarm:
    """Calls on the loop's thread, each at its monotonic instant or as soon as possible after it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Wake] = []
        self._count = 0
        self._set_for = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._libc: Any = None
        self._spec = _Spec()
        self._file = self._open()
        if self._file >= 0:
            loop.add_reader(self._file, self._ring)

    def _open(self) -> int:
        if not sys.platform.startswith("linux"):
            return -1
        self._libc = ctypes.CDLL(None, use_errno=True)
        return int(self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def at(self, due: float, call: Callable[[], object]) -> Wake:
        """Call at `due`."""
        self._count += 1
        wake = Wake(due, self._count, call)
        heapq.heappush(self._due, wake)
        if due < self._set_for:
            self._set(due)
        return wake

    def close(self) -> None:
        """Call nothing any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _set(self, due: float) -> None:
        self._set_for = due
        if self._file >= 0:
            whole = int(due)
            self._spec.at_s = whole
            self._spec.at_ns = max(1, int((due - whole) * 1e9))  # 0 and 0 would disarm it
            self._libc.timerfd_settime(
                self._file, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None
            )
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._ring)

    def _ring(self) -> None:
        if self._file >= 0:
            try:
                os.read(self._file, 8)
            except BlockingIOError:  # it was set anew meanwhile
                pass
        self._set_for = float("inf")
        now = time.monotonic()
        while self._due and (self._due[0].call is None or self._due[0].due <= now):
            wake = heapq.heappop(self._due)
            if wake.call is not None:
                self._loop.call_soon(wake.ring)
        if self._due:
            self._set(self._due[0].due)
