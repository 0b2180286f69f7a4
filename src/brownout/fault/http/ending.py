"""The end of a fault, for all who wait because of it: threads and tasks of any loop."""

from __future__ import annotations

import asyncio
import threading
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ending"]


class Ending:
    """Comes once, and wakes everyone."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wake: set[Callable[[], object]] = set()

    @property
    def over(self) -> bool:
        """Whether it has come."""
        return self._event.is_set()

    @property
    def waiting(self) -> int:
        """How many tasks wait and were not woken."""
        return len(self._wake)

    def come(self) -> None:
        """Wake all."""
        with self._lock:
            self._event.set()
            woken, self._wake = self._wake, set()
        for wake in woken:
            wake()

    def wait(self, seconds: float) -> bool:
        """Wait in this thread, at most so long; True if the end came."""
        return self._event.wait(None if seconds == inf else min(seconds, threading.TIMEOUT_MAX))

    async def await_(self, seconds: float) -> bool:
        """Wait in this task, at most so long; True if the end came."""
        loop = asyncio.get_running_loop()
        came = asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(came.set)

        with self._lock:
            if self.over:
                return True
            self._wake.add(wake)
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                await came.wait()
        except TimeoutError:
            return self.over
        finally:
            with self._lock:
                self._wake.discard(wake)
        return True
