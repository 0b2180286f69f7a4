"""When an original was at which position: what tells how far a copy is behind.

No replica can tell: what has not arrived it does not know of, and a delay it does on purpose it does not
count. So somebody looks at the original again and again and keeps when each position was first seen.
"""

from __future__ import annotations

from bisect import bisect_right

KEPT = 20_000  # changes of position: 400 s of steady writes, 320 kB


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
