"""Bytes are lost or changed, and connections are cut: the kinds of fault that break the stream."""

from __future__ import annotations

import time
from math import inf, log
from typing import TYPE_CHECKING, Any

from brownout._core.fault import drawn
from brownout.fault.kind import Corrupt, Cut, Drop, Timeout

from .stage import ITEM_BYTES, End, F, Stage

if TYPE_CHECKING:
    from .active import Active
    from .alarm import Wake
    from .stream import Stream
    from .truth import Exchange

__all__ = ["Corrupting", "Cutting", "Dropping", "TimingOut"]


class Lossy(Stage[F]):
    """Loses the data that it hits, and holds the end back."""

    did = "dropped"

    def __init__(self, stream: Stream, active: Active, fault: F) -> None:
        super().__init__(stream, active, fault)
        self._end: tuple[End, Exchange] | None = None

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Lose it."""
        if self.hit(exchange):
            self.note(exchange, len(data))
            self._lost()
        else:
            self.next.data(data, exchange)

    def _lost(self) -> None:
        """Something was lost."""

    def end(self, end: End, exchange: Exchange) -> None:
        """Hold it back: silence is silence."""
        if self.hit(exchange):
            self._end = end, exchange
        else:
            self.next.end(end, exchange)

    def release(self, *, replaced: bool) -> None:
        """Hand the end on, if it has come."""
        if self._end is not None:
            held, self._end = self._end, None
            self.next.end(*held)


class Dropping(Lossy[Drop]):
    """Makes `Drop`."""


class TimingOut(Lossy[Timeout]):
    """Makes `Timeout`: its end is also the connection's."""

    _wake: Wake | None = None
    _due = inf
    _last: Exchange | None = None

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Take data in."""
        self._last = exchange
        super().data(data, exchange)

    def _lost(self) -> None:
        seconds = drawn(self.fault.seconds, self.chance)
        if not seconds:
            return
        self._due = time.monotonic() + seconds
        if self._wake is None:
            self._wake = self.stream.link.alarm.at(self._due, self._look)

    def _look(self) -> None:
        self._wake = None
        if self._due > time.monotonic():  # more data came
            self._wake = self.stream.link.alarm.at(self._due, self._look)
        else:
            self.stream.link.cut("close", self.active, self._last)

    def release(self, *, replaced: bool) -> None:
        """Close what it was at work on."""
        self.discard()
        if replaced:
            super().release(replaced=replaced)
        elif self.fault.per == "connection" or (self._last is not None and self.hit(self._last)):
            self.stream.link.cut("close", self.active, self._last)

    def discard(self) -> None:
        """Forget what is held."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None


class Corrupting(Stage[Corrupt]):
    """Makes `Corrupt`: which bytes does not depend on how they come in pieces."""

    did = "corrupted"

    def __init__(self, stream: Stream, active: Active, fault: Corrupt) -> None:
        super().__init__(stream, active, fault)
        self._until = self._gap()  # how many bytes are left as they are

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Take data in."""
        if not self.hit(exchange):
            self.next.data(data, exchange)
            return
        changed = bytearray(data)
        at, count = 0, 0
        while self._until < len(data) - at:
            at += int(self._until)
            changed[at] ^= 1 + int(self.chance.random() * 255)  # never the same byte
            at += 1
            count += 1
            self._until = self._gap()
        self._until -= len(data) - at
        if count:
            self.note(exchange, count)
        self.next.data(bytes(changed), exchange)

    def _gap(self) -> float:
        """How many bytes until the next one: geometric, so that each byte is hit alike."""
        share = self.fault.share_of_bytes
        if share <= 0:
            return inf
        if share >= 1:
            return 0
        return float(int(log(1 - self.chance.random()) / log(1 - share)))


class Cutting(Stage[Cut]):
    """Makes `Cut` in the midst: lets bytes pass, then none, then sends the cut after them."""

    did = "cut"

    def __init__(self, stream: Stream, active: Active, fault: Cut) -> None:
        super().__init__(stream, active, fault)
        self.passed = 0
        self.of: Exchange | None = None
        self._held: list[tuple[bytes | End, Exchange]] = []  # comes while the cut is waited for
        self._wake: Wake | None = None
        self._reached = False

    def follow(self, before: Stage[Any]) -> None:
        """Go on counting."""
        if isinstance(before, Cutting):
            self.of, self.passed = before.of, before.passed

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Take data in."""
        if self._reached:
            self._hold(data, exchange)
            return
        if not self.hit(exchange):
            self.next.data(data, exchange)
            return
        if self.fault.per == "request" and self.of is not exchange:
            self.of, self.passed = exchange, 0
        left = self.fault.after_bytes - self.passed
        self.passed += len(data)
        if len(data) < left:
            self.next.data(data, exchange)
            return
        self._reached = True
        if left > 0:
            self.next.data(data[:left], exchange)
        if len(data) > max(0, left):
            self._hold(data[max(0, left) :], exchange)
        seconds = drawn(self.fault.after_seconds, self.chance)
        if seconds:
            due = time.monotonic() + seconds
            self._wake = self.stream.link.alarm.at(due, lambda: self._do(exchange))
        else:
            self._do(exchange)

    def _hold(self, what: bytes | End, exchange: Exchange) -> None:
        if isinstance(what, bytes):
            self.stream.hold(len(what) + ITEM_BYTES)
        self._held.append((what, exchange))

    def _do(self, exchange: Exchange) -> None:
        self._wake = None
        self.note(exchange, self.passed)
        end = End.CUT_RESET if self.fault.how == "reset" else End.CUT_CLOSE
        self.next.end(end, exchange)

    def end(self, end: End, exchange: Exchange) -> None:
        """Take the end in."""
        if self._wake is not None:
            self._hold(end, exchange)
        else:
            self.next.end(end, exchange)

    def release(self, *, replaced: bool) -> None:
        """Hand on what is held."""
        self.discard(keep=True)
        held, self._held = self._held, []
        for what, exchange in held:
            if isinstance(what, bytes):
                self.stream.let(len(what) + ITEM_BYTES)
                self.next.data(what, exchange)
            else:
                self.next.end(what, exchange)

    def discard(self, *, keep: bool = False) -> None:
        """Forget what is held."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if not keep:
            self._held.clear()
