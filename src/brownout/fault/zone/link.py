"""What faults of a link do to its packets: each says when a packet goes on, or that it does not.

Told all that it needs, the instant too: nothing here waits, reads or writes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar

from brownout._core.fault import Injection, Log, drawn
from brownout.errors import ConfigurationError
from brownout.fault.kind import Bandwidth, Latency, Loss, Partition, SlowHandshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.fault import Fault
    from brownout.fault.zone.packet import Packet

__all__ = ["MAKES", "REFUSED", "Acting", "acting", "check"]

MOST_FLOWS = 16_384  # of one fault that are told apart; the longest silent is forgotten
QUEUE_SECONDS = 0.2  # what a narrow link holds before it loses packets, and two packets besides
REFUSED = -1.0  # an instant that never is

Flow = tuple[int, int, int]  # protocol, port of the first zone, port of the second


def check(fault: Fault) -> None:
    """Raises ConfigurationError for what no link can do."""
    if type(fault) not in MAKES:
        there = ", ".join(kind.__name__ for kind in MAKES)
        raise ConfigurationError(f"{fault}: no fault of a link between zones; those are {there}")
    if fault.per == "request" or fault.match is not None or fault.client is not None:
        raise ConfigurationError(
            f"{fault}: a link carries packets, and its ends are known: per, match and client say nothing"
        )


def acting(name: str, fault: Fault, *, seed: int, since: float, port: int) -> Acting:
    """A fault of a link, in force from `since` on; of one port of the second zone, unless it is 0."""
    return MAKES[type(fault)](Injection(name, fault, seed=seed, since=since, log=Log()), port)


class Acting:
    """A fault at work: numbers the flows, in the order in which they are first seen, and decides."""

    holds: ClassVar[bool] = False  # whether packets wait for it

    def __init__(self, injection: Injection, port: int) -> None:
        self.injection = injection
        self._port = port
        self._flows: OrderedDict[Flow, int] = OrderedDict()
        self._seen = 0
        self._told: set[int] = set()

    def after(self, packet: Packet, now: float, *, upstream: bool) -> float | None:
        """When a packet that comes at `now` goes on; None: it is lost; REFUSED: and its sender is told."""
        ports = (packet.source, packet.destination)
        first, second = ports if upstream else ports[::-1]
        if self._port and second != self._port:
            return now
        fault = self.injection.fault
        if fault.stream != "both" and (fault.stream == "upstream") is not upstream:
            return now
        return self._after(packet, (packet.protocol, first, second), now, upstream=upstream)

    def _after(self, packet: Packet, flow: Flow, now: float, *, upstream: bool) -> float | None:
        raise NotImplementedError

    def _number(self, flow: Flow) -> int:
        number = self._flows.get(flow)
        if number is None:
            self._seen += 1
            self._flows[flow] = number = self._seen
            if len(self._flows) > MOST_FLOWS:
                self._told.discard(self._flows.popitem(last=False)[1])
        else:
            self._flows.move_to_end(flow)
        return number

    def _hits(self, number: int, now: float) -> bool:
        hit = self.injection.hits(now, number)
        if number not in self._told:
            self._told.add(number)
            self.injection.note(now, number, 0, "hit" if hit else "passed")
        return hit


class _Partition(Acting):
    def _after(self, packet: Packet, flow: Flow, now: float, *, upstream: bool) -> float | None:
        fault = self.injection.fault
        assert isinstance(fault, Partition)
        if fault.connections == "new" and not packet.opens:
            return now
        number = self._number(flow)
        if not self._hits(number, now):
            return now
        refused = fault.how == "refuse"
        self.injection.note(now, number, 0, "refused" if refused else "dropped", packet.size)
        return REFUSED if refused else None


class _Loss(Acting):
    """Its subjects are packets, counted for each stream by itself."""

    def __init__(self, injection: Injection, port: int) -> None:
        super().__init__(injection, port)
        self._packets = [0, 0]

    def _after(self, packet: Packet, flow: Flow, now: float, *, upstream: bool) -> float | None:
        self._packets[upstream] += 1
        count = self._packets[upstream]
        if not self.injection.hits(now, count, int(upstream)):
            return now
        self.injection.note(now, self._number(flow), count, "dropped", packet.size)
        return None


class _Waiting(Acting):
    """Packets of a flow and stream stay in order."""

    holds = True

    def __init__(self, injection: Injection, port: int) -> None:
        super().__init__(injection, port)
        self._last: OrderedDict[tuple[int, bool], float] = OrderedDict()
        self._drawn = 0

    def _after(self, packet: Packet, flow: Flow, now: float, *, upstream: bool) -> float | None:
        number = self._number(flow)
        last = self._last.get((number, upstream), now)
        due = max(now, last)
        if self._hits(number, now):
            found = self._due(packet, number, now, last)
            if found is None:
                return None
            due = found
            self.injection.note(now, number, 0, "delayed", due - now)
        if due > now:
            self._last[number, upstream] = due
            if len(self._last) > 2 * MOST_FLOWS:
                self._last.popitem(last=False)
        return due

    def _due(self, packet: Packet, number: int, now: float, last: float) -> float | None:
        raise NotImplementedError


class _Latency(_Waiting):
    def _due(self, packet: Packet, number: int, now: float, last: float) -> float | None:
        fault = self.injection.fault
        assert isinstance(fault, Latency)
        self._drawn += 1
        wait = drawn(fault.seconds, self.injection.chance(number, self._drawn))
        return max(now + wait, last)


class _Bandwidth(_Waiting):
    def _due(self, packet: Packet, number: int, now: float, last: float) -> float | None:
        fault = self.injection.fault
        assert isinstance(fault, Bandwidth)
        rate = fault.bytes_per_second
        if not rate or last - now > QUEUE_SECONDS + 2 * packet.size / rate:
            self.injection.note(now, number, 0, "dropped", packet.size)
            return None
        return max(now, last) + packet.size / rate


class _SlowHandshake(Acting):
    holds = True

    def _after(self, packet: Packet, flow: Flow, now: float, *, upstream: bool) -> float | None:
        fault = self.injection.fault
        assert isinstance(fault, SlowHandshake)
        if not packet.opens:
            return now
        number = self._number(flow)
        if not self._hits(number, now):
            return now
        wait = drawn(fault.seconds, self.injection.chance(number))
        self.injection.note(now, number, 0, "delayed", wait)
        return now + wait


MAKES: dict[type[Fault], Callable[[Injection, int], Acting]] = {
    Bandwidth: _Bandwidth,
    Latency: _Latency,
    Loss: _Loss,
    Partition: _Partition,
    SlowHandshake: _SlowHandshake,
}
