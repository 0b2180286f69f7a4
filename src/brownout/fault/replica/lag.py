"""How far a copy is behind, in seconds: from what the original was at, and when.

No replica can tell: what has not arrived it does not know of, and a delay it does on purpose it does not
count. So somebody looks at the original again and again and keeps when each position was first seen.
A copy is behind since the first position above the one it holds.

The same positions make a *fence*: who has written passes the position on, and who reads waits for it.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from typing import TYPE_CHECKING

from brownout.errors import BrownoutError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["History", "Lag"]

KEPT = 20_000  # changes of position: 400 s of steady writes, 320 kB
PAUSE_SECONDS = 0.0005  # between looks of a fence: a fifth of what a commit takes to arrive


class History:
    """When the original first was seen at each position, the oldest first.

    When it is full every second one goes, and from then on they are kept at twice the distance: instants get
    coarser (by a ten-thousandth of the time that is kept), never lost. What is told is then the instant of
    the one before, so that nothing seems fresher than it is.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self.newest: int | None = None  # the position that was last seen
        self.seen_at = float("-inf")  # when the original last answered
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._positions: list[int] = []
        self._instants: list[float] = []
        self._distance = 0.0  # seconds between those that are kept

    def note(self, at: float, position: int) -> None:
        """The original is at that position. One that goes back is that of a new original."""
        self.seen_at = max(self.seen_at, at)
        if position == self.newest:
            return
        if self.newest is not None and position < self.newest:
            self._begin_anew()
        self.newest = position
        if self._instants and at - self._instants[-1] < self._distance:
            return
        self._positions.append(position)
        self._instants.append(at)
        if len(self._positions) > self._kept:
            self._positions = self._positions[::2]
            self._instants = self._instants[::2]
            self._distance = 2 * (at - self._instants[0]) / self._kept

    def behind_since(self, position: int) -> float | None:
        """Since when a copy that holds this position lacks something; None if it holds all.

        What it holds it will not lack again: if that is all, no more is kept of it.
        """
        if self.newest is None or position >= self.newest:
            self._begin_anew()
            return None
        first = bisect_right(self._positions, position)
        if first and self._distance:
            first -= 1
        return self._instants[first] if self._instants else self.seen_at


class Lag:
    """Reads how far a copy is behind; `original` and `copy` answer with their positions, from any thread.

    A position is a number that grows with each write. The original is looked at every `every` seconds,
    which is also how exact the answer is. Both raise OSError while they can't be asked.
    """

    def __init__(
        self, original: Callable[[], int], copy: Callable[[], int], *, every: float = 0.02
    ) -> None:
        if not 0.001 <= every <= 60:
            raise ConfigurationError(f"every={every!r} is from 0.001 to 60 s")
        self._original = original
        self._copy = copy
        self._every = every
        self._history = History()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="brownout lag", daemon=True)
        self.position()  # the first, before anything falls behind
        self._thread.start()

    def position(self) -> int:
        """What the original is at: pass it to `fence`. Raises OSError if it can't be asked."""
        with self._lock:
            asked = time.monotonic()
            position = self._original()
            self._history.note(asked, position)
            return position

    def seconds_behind(self) -> float:
        """For how long the copy has lacked something that the original has; 0 if it holds all.

        If the original can't be asked, and the copy holds all that was known, it is how long ago that was.
        Raises OSError if the copy can't be asked.
        """
        try:
            self.position()
            silent = False
        except OSError:
            silent = True
        held = self._copy()
        now = time.monotonic()
        with self._lock:
            since = self._history.behind_since(held)
            if since is None:
                return max(0.0, now - self._history.seen_at) if silent else 0.0
            return max(0.0, now - since)

    def fence(self, position: int | None = None, *, seconds: float = 1.0) -> float:
        """Wait until the copy holds a position, or without one all that the original has; how long it took.

        Raises TimeoutError with how far the copy is behind, OSError if it, or the original, can't be asked.
        """
        began = time.monotonic()
        wanted = self.position() if position is None else position
        while (held := self._copy()) < wanted:
            waited = time.monotonic() - began
            if waited >= seconds:
                raise TimeoutError(
                    f"the copy is at {held} and not at {wanted} after {waited:.3g} s; it is"
                    f" {self.seconds_behind():.3g} s behind. Read from the original, or wait longer"
                )
            self._closed.wait(PAUSE_SECONDS)
        return time.monotonic() - began

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            try:
                self.position()
            except (OSError, BrownoutError):
                pass  # it is seen in the answers: what was last known gets older
