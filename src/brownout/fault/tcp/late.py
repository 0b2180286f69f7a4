"""Bytes are late: the kinds of fault that hold data and hand it on in time."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

from brownout._core.fault import drawn
from brownout.fault.kind import Bandwidth, Hang, Latency, Slice, SlowClose

from .stage import End, Item, Queued

if TYPE_CHECKING:
    from .truth import Exchange

__all__ = ["Delaying", "Dripping", "Hanging", "LateEnding", "Narrow"]

PIECE_SECONDS = 0.02  # of a narrow line: what it passes at once


class Delaying(Queued[Latency]):
    """Makes `Latency`: the end is late too, as on a long line."""

    did = "delayed"
    _last = 0.0

    def _enter(self, item: Item) -> None:
        if item.hit:
            item.due += drawn(self.fault.seconds, self.chance)
        self._last = item.due = max(self._last, item.due)

    def _told(self, item: Item) -> float:
        return item.due - item.arrived


class Narrow(Queued[Bandwidth]):
    """Makes `Bandwidth`: small pieces, each when the line has carried it."""

    did = "slowed"
    _free = 0.0  # when the line has carried what it was given

    def _plan(self, item: Item) -> tuple[float, int]:
        if not item.hit or isinstance(item.what, End):
            return item.due, 0
        rate = self.fault.bytes_per_second
        if rate <= 0:
            return inf, 0
        size = min(len(item.what) - item.at, max(1, int(rate * PIECE_SECONDS)))
        return max(self._free, item.arrived) + size / rate, size

    def _took(self, due: float) -> None:
        self._free = due


class Dripping(Queued[Slice]):
    """Makes `Slice`."""

    did = "sliced"
    apart = True
    _next = 0.0
    _size = 0

    def _plan(self, item: Item) -> tuple[float, int]:
        if not item.hit or isinstance(item.what, End):
            return item.due, 0
        if not self._size:
            self._size = max(1, round(drawn(self.fault.bytes, self.chance)))
        return max(self._next, item.arrived), self._size

    def _took(self, due: float) -> None:
        self._next = max(due, time.monotonic()) + drawn(self.fault.seconds, self.chance)
        self._size = 0


class Hanging(Queued[Hang]):
    """Makes `Hang`."""

    did = "held"
    _until: float | None = None
    _of: Exchange | None = None

    def _enter(self, item: Item) -> None:
        if not item.hit:
            return
        if self._until is None or (self.fault.per == "request" and self._of is not item.exchange):
            self._until = item.arrived + drawn(self.fault.seconds, self.chance)
            self._of = item.exchange
        item.due = max(item.arrived, self._until)


class LateEnding(Queued[SlowClose]):
    """Makes `SlowClose`: only the end is held."""

    did = "held"

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Take data in."""
        self.next.data(data, exchange)

    def _enter(self, item: Item) -> None:
        if item.hit and isinstance(item.what, End):
            seconds = drawn(self.fault.seconds, self.chance)
            item.due += seconds
            self.note(item.exchange, seconds)
