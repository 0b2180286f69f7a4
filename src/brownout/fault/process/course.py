"""A mechanism in its time: in force when the fault's schedule says so, until it is undone."""

from __future__ import annotations

import threading
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.fault import Injection
    from brownout.fault.process.mechanism import Mechanism

__all__ = ["Course"]

BUSY_SECONDS = 0.02


class Course:
    """Enters and leaves as the schedule says: at once if it can, else on a thread of its own.

    `held(act)` does that while the fault is surely on record, and says False once it is not: somebody else
    has undone it then, and nothing may bring it back. It raises TimeoutError while somebody is about it.
    """

    def __init__(
        self, mechanism: Mechanism, injection: Injection, held: Callable[[Callable[[], None]], bool]
    ) -> None:
        self._mechanism = mechanism
        self._injection = injection
        self._schedule = injection.fault.schedule
        self._held = held
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Make it, or see to it that it is made when its time comes."""
        began = time.monotonic()
        on = self._schedule.strength(0.0) > 0
        if on:
            self._turn(on=True)
        if self._schedule.next_change(0.0) < inf:
            self._thread = threading.Thread(
                target=self._follow, args=(began, on), name="brownout-schedule", daemon=True
            )
            self._thread.start()

    def _turn(self, *, on: bool) -> None:
        if on:
            self._mechanism.enter()
        else:
            self._mechanism.leave()
        self._injection.note(time.monotonic(), 0, 0, "in force" if on else "lifted")

    def _follow(self, began: float, on: bool) -> None:  # noqa: FBT001  a thread's argument
        while not self._over.is_set():
            elapsed = time.monotonic() - began
            wanted = self._schedule.strength(elapsed) > 0
            if wanted != on:
                try:
                    if not self._held(partial(self._turn, on=wanted)):
                        return
                except TimeoutError:
                    self._over.wait(BUSY_SECONDS)
                    continue
                except Exception as error:  # no caller to tell: the log is read afterwards
                    self._injection.note(time.monotonic(), 0, 0, f"failed: {error}")
                    return
                on = wanted
            change = self._schedule.next_change(elapsed)
            if change == inf:
                return
            self._over.wait(max(0.0, began + change - time.monotonic()))

    def end(self) -> None:
        """Stop following the schedule, and let go of what only this process holds."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._mechanism.close()

    def ended(self) -> bool:
        """Whether that is seen to be gone."""
        return self._thread is None and self._mechanism.closed()
