"""The one clock: monotonic seconds. Tests and simulators replace it here, for every driver at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Where the time comes from, and how a thread waits."""

    __slots__ = ("now", "sleep")

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], None] = time.sleep

    def reset(self) -> None:
        """Go back to the real clock."""
        self.now, self.sleep = time.monotonic, time.sleep


clock = Clock()
