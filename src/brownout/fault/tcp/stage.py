"""A stage: one fault at work on one direction of one connection. Data passes through a chain of them.

The chain is in the order in which the faults were made. Data and the end of the stream pass through the
same chain, so nothing overtakes anything. A stage that is taken away hands on what it holds, at once.
"""

from __future__ import annotations

import time
from collections import deque
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from brownout._core.fault import Fault

if TYPE_CHECKING:
    from .active import Active
    from .alarm import Wake
    from .stream import Stream
    from .truth import Exchange

__all__ = ["ITEM_BYTES", "End", "F", "Item", "Onward", "Queued", "Stage"]

ITEM_BYTES = 64  # what a held piece costs besides its bytes

F = TypeVar("F", bound=Fault)


class End(Enum):
    """How a stream ends: its source closed or was reset, or a fault cuts the whole connection."""

    CLOSE = "close"
    RESET = "reset"
    CUT_CLOSE = "cut: close"
    CUT_RESET = "cut: reset"


class Onward(Protocol):
    """Where a stage hands on: the next stage, or the stream's tail."""

    def data(self, data: bytes, exchange: Exchange, /) -> None: ...  # noqa: D102
    def end(self, end: End, exchange: Exchange, /) -> None: ...  # noqa: D102


class Stage(Generic[F]):
    """One fault at work on one direction of one connection. This one lets everything pass."""

    did: ClassVar[str] = ""  # what the log says of it

    def __init__(self, stream: Stream, active: Active, fault: F) -> None:
        self.stream = stream
        self.active = active
        self.fault = fault
        self.next: Onward = stream
        self.chance = active.injection.chance(stream.link.number, stream.place)

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Take data in."""
        self.next.data(data, exchange)

    def end(self, end: End, exchange: Exchange) -> None:
        """Take the end in."""
        self.next.end(end, exchange)

    def follow(self, before: Stage[Any]) -> None:
        """It takes the place of another amount of the same, which is released next."""

    def release(self, *, replaced: bool) -> None:
        """It is undone (or `replaced` by another amount of the same): hand on all that is held."""

    def discard(self) -> None:
        """The connection is over: forget all that is held."""

    def hit(self, exchange: Exchange) -> bool:
        """Whether it does anything to this exchange."""
        return self.stream.link.hit(self.active, exchange)

    def note(self, exchange: Exchange, amount: float) -> None:
        """Log what is done."""
        link = self.stream.link
        self.active.injection.note(
            time.monotonic(), link.number, exchange.request, self.did, amount, self.stream.passed
        )


class Item:
    """Something held: data, of which `at` bytes have gone on, or the end."""

    __slots__ = ("arrived", "at", "due", "exchange", "hit", "what")

    def __init__(self, what: bytes | End, exchange: Exchange, arrived: float, *, hit: bool) -> None:
        self.what = what
        self.exchange = exchange
        self.arrived = arrived
        self.hit = hit
        self.at = 0
        self.due = arrived


class Queued(Stage[F]):
    """Holds what it hits, in order, until it is due. What it doesn't hit waits only for what is before it."""

    apart = False  # pieces are handed on in turns of the loop of their own

    def __init__(self, stream: Stream, active: Active, fault: F) -> None:
        super().__init__(stream, active, fault)
        self.queue: deque[Item] = deque()
        self._wake: Wake | None = None

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Hold it, if it is hit or something is before it."""
        hit = self.hit(exchange)
        if not hit and not self.queue:
            self.next.data(data, exchange)
            return
        item = Item(data, exchange, time.monotonic(), hit=hit)
        self.stream.hold(len(data) + ITEM_BYTES)
        self._put(item)
        if hit:
            self.note(exchange, self._told(item))

    def end(self, end: End, exchange: Exchange) -> None:
        """Hold the end as the data."""
        self._put(Item(end, exchange, time.monotonic(), hit=self.hit(exchange)))

    def _told(self, item: Item) -> float:
        """The amount that the log is told: bytes, or seconds."""
        return float(len(item.what)) if isinstance(item.what, bytes) else 0.0

    def _plan(self, item: Item) -> tuple[float, int]:
        """When the next piece of the first item is due, and how many bytes it has; 0 is all of it."""
        return item.due, 0

    def _enter(self, item: Item) -> None:
        """Say of a new item when it is due."""

    def _took(self, due: float) -> None:
        """A piece of an item that is hit was handed on."""

    def _put(self, item: Item) -> None:
        self._enter(item)
        self.queue.append(item)
        if self._wake is None:
            self._pump()

    def _pump(self) -> None:
        self._wake = None
        now = time.monotonic()
        while self.queue:
            item = self.queue[0]
            due, size = self._plan(item)
            if due > now:
                if due < inf:
                    self._wake = self.stream.link.alarm.at(due, self._pump)
                return
            more = self._take(item, size)
            if item.hit:
                self._took(due)
            if more and self.apart:
                self._wake = self.stream.link.alarm.at(now, self._pump)
                return

    def _take(self, item: Item, size: int) -> bool:
        """Hand on so many bytes of the first item; whether more of it is left."""
        if isinstance(item.what, End):
            self.queue.popleft()
            self.next.end(item.what, item.exchange)
            return False
        left = len(item.what) - item.at
        if size and size < left:
            piece = item.what[item.at : item.at + size]
            item.at += size
            self.stream.let(size)
            self.next.data(piece, item.exchange)
            return True
        self.queue.popleft()
        self.stream.let(left + ITEM_BYTES)
        self.next.data(item.what[item.at :] if item.at else item.what, item.exchange)
        return False

    def release(self, *, replaced: bool) -> None:
        """Hand on all, in order."""
        self._unwake()
        while self.queue:
            self._take(self.queue[0], 0)

    def discard(self) -> None:
        """Forget all."""
        self._unwake()
        self.queue.clear()

    def _unwake(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
