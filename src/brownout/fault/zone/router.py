"""The process that holds zones: it owns their namespaces, and every packet between them goes through it.

It waits for packets, for those whose time has come, for its maker's word, and for its maker's death. When
it dies, the kernel takes the devices' carrier away at once, and each namespace with its last process.
"""

from __future__ import annotations

import heapq
import os
import pickle
import select
import socket
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import BrownoutError
from brownout.fault.identity import Identity
from brownout.fault.zone import ground, link, packet, residents

if TYPE_CHECKING:
    from brownout._core.fault import Fault, Log

__all__ = ["MESSAGE_BYTES", "TOLD_AT_ONCE", "Router", "main"]

MESSAGE_BYTES = 128 * 1024
TOLD_AT_ONCE = 500  # decisions in one message
HELD_BYTES = 64 * 1024 * 1024  # that wait at once; what comes then is lost
PACKETS_AT_ONCE = 32  # of one zone, before the others are looked after
LOGS_KEPT = 256

Way = tuple[int, int]  # zone from, zone to


def _back(way: Way) -> Way:
    return way[1], way[0]


class _Held(NamedTuple):
    due: float
    number: int
    way: Way
    data: bytes


class Router:
    """Zones, counted from 1: their namespaces, devices and the packets under way."""

    def __init__(self, id_: str, zones: int, mtu: int) -> None:
        self.in_user_namespace = ground.dig()
        self.by = "network namespaces" + ", in a user namespace" * self.in_user_namespace
        self.namespaces: list[int] = []
        self.devices: dict[int, int] = {}
        self.probes: dict[int, socket.socket] = {}
        for number in range(1, zones + 1):
            with ground.new_zone(number, id_, mtu) as (namespace, device):
                probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                probe.bind((ground.address(number), 0))
                probe.setblocking(False)  # noqa: FBT003  socket's own
            self.namespaces.append(namespace)
            self.devices[number] = device
            self.probes[number] = probe
        self._numbers = count()
        self._acting: dict[Way, list[tuple[link.Acting, bool]]] = {}  # the bool: upstream
        self._made: dict[str, tuple[link.Acting, Way]] = {}
        self._logs: OrderedDict[str, Log] = OrderedDict()
        self._held: list[_Held] = []
        self._held_bytes = 0

    # ---------------------------------------------------------------------------------- packets

    def wait_seconds(self) -> float | None:
        """Until the next packet is due; None: none is."""
        return max(0.0, self._held[0].due - time.monotonic()) if self._held else None

    def carry(self, zone: int) -> None:
        """Read what this zone sends, and hand it on."""
        device = self.devices[zone]
        for _ in range(PACKETS_AT_ONCE):
            try:
                data = os.read(device, 65_536)
            except OSError:  # nothing more, for now
                return
            # Nothing but IPv4 from this zone itself to another one: all else goes nowhere.
            if (
                data[0] >> 4 != 4
                or data[12:16] != ground.NETWORK + bytes([zone])
                or data[16:19] != ground.NETWORK
            ):
                continue
            way = (zone, data[19])
            if way[1] not in self.devices:
                continue
            if acting := self._acting.get(way):
                self._judge(way, data, acting)
            else:
                self._deliver(way[1], data)

    def _judge(self, way: Way, data: bytes, acting: list[tuple[link.Acting, bool]]) -> None:
        now = due = time.monotonic()
        try:
            read = packet.read(data)
        except ValueError:
            return
        for one, upstream in acting:
            after = one.after(read, due, upstream=upstream)
            if after is None:
                return
            if after == link.REFUSED:
                if answer := packet.refusal(data):
                    self._deliver(way[0], answer)
                return
            due = after
        if due <= now:
            self._deliver(way[1], data)
        elif self._held_bytes + len(data) <= HELD_BYTES:
            heapq.heappush(self._held, _Held(due, next(self._numbers), way, data))
            self._held_bytes += len(data)

    def _deliver(self, zone: int, data: bytes) -> None:
        with suppress(OSError):  # its queue is full: lost, as with any device
            os.write(self.devices[zone], data)

    def deliver_due(self) -> None:
        """Hand on what has waited long enough."""
        now = time.monotonic()
        while self._held and self._held[0].due <= now:
            held = heapq.heappop(self._held)
            self._held_bytes -= len(held.data)
            self._deliver(held.way[1], held.data)

    # ------------------------------------------------------------------------- the maker's word

    def make(self, name: str, fault: Fault, way: Way, port: int, seed: int) -> None:
        """Put a fault in force from now on, after those of the same link."""
        if name in self._made:
            raise ValueError(f'a fault named "{name}" is in force')
        one = link.acting(name, fault, seed=seed, since=time.monotonic(), port=port)
        self._made[name] = (one, way)
        self._logs[name] = one.injection.log
        if len(self._logs) > LOGS_KEPT:
            self._logs.popitem(last=False)
        self._acting.setdefault(way, []).append((one, True))
        self._acting.setdefault(_back(way), []).append((one, False))

    def undo(self, name: str) -> None:
        """Take a fault out of force; what waits on its link is handed on at once, in order."""
        if name not in self._made:
            return
        gone, way = self._made.pop(name)
        both = (way, _back(way))
        for each in both:
            left = [(one, upstream) for one, upstream in self._acting[each] if one is not gone]
            self._acting[each] = left
            if not left:
                del self._acting[each]
        if gone.holds:
            ours = sorted(held for held in self._held if held.way in both)
            self._held = [held for held in self._held if held.way not in both]
            heapq.heapify(self._held)
            for held in ours:
                self._held_bytes -= len(held.data)
                self._deliver(held.way[1], held.data)

    def names(self, way: Way) -> list[str]:
        """The faults in force on this link."""
        return [name for name, (_, each) in self._made.items() if each in (way, _back(way))]

    def told(self, name: str, since: int) -> tuple[list[tuple[Any, ...]], int]:
        """Some of what a fault has decided, from that one on; and how many are lost."""
        log = self._logs.get(name)
        if log is None:
            return [], 0
        first = max(0, since - log.lost)
        return [tuple(one) for one in islice(log, first, first + TOLD_AT_ONCE)], log.lost

    def probe(self, way: Way, token: bytes) -> None:
        """Send one packet from zone to zone, by a socket that is in there."""
        with suppress(OSError):
            self.probes[way[0]].sendto(token, self.probes[way[1]].getsockname())

    def arrived(self, zone: int) -> list[str]:
        """What probes have reached this zone."""
        found: list[str] = []
        with suppress(OSError):
            while len(found) < PACKETS_AT_ONCE:
                found.append(self.probes[zone].recv(100).decode("ascii", "replace"))
        return found


# ------------------------------------------------------------------------------------- the process


def _run(router: Router, control: socket.socket, maker: int) -> None:
    zones = {device: zone for zone, device in router.devices.items()}
    probes = {probe.fileno(): zone for zone, probe in router.probes.items()}
    # select(2), since its waits are exact to microseconds; poll and epoll count milliseconds.
    watched = [*zones, *probes, control.fileno(), maker]
    seen: OrderedDict[str, None] = OrderedDict()
    while True:
        ready, _, _ = select.select(watched, [], [], router.wait_seconds())
        router.deliver_due()
        for file in ready:
            if file in zones:
                router.carry(zones[file])
            elif file in probes:
                seen.update(dict.fromkeys(router.arrived(probes[file])))
                while len(seen) > 1000:
                    seen.popitem(last=False)
            elif file == maker or not _listen(router, control, seen):
                return


def _listen(router: Router, control: socket.socket, seen: OrderedDict[str, None]) -> bool:
    """Do as the maker says; False once it says nothing any more."""
    try:
        said = control.recv(MESSAGE_BYTES)
    except OSError:
        return False
    if not said:
        return False
    verb, *rest = pickle.loads(said)  # noqa: S301  of our maker, by a socket that only we two have
    try:
        answer = rest[0] in seen if verb == "arrived" else getattr(router, verb)(*rest)
        control.send(pickle.dumps((True, answer)))
    except OSError:
        return False
    except Exception as error:  # the maker raises it
        control.send(pickle.dumps((False, f"{type(error).__name__}: {error}")))
    return True


def main(arguments: list[str]) -> None:
    """`CONTROL PID START ID ZONES MTU`: hold so many zones for that maker, until it dies or says no more."""
    control = socket.socket(fileno=int(arguments[0]))
    maker = Identity(int(arguments[1]), int(arguments[2]))
    id_, zones, mtu = arguments[3], int(arguments[4]), int(arguments[5])
    watch = os.pidfd_open(maker.pid)
    if not maker.alive():
        return
    try:
        router = Router(id_, zones, mtu)
    except (BrownoutError, OSError) as error:
        control.send(pickle.dumps((False, str(error))))
        return
    control.send(pickle.dumps((True, (router.by, router.namespaces, router.in_user_namespace))))
    try:
        _run(router, control, watch)
    finally:
        residents.end_all(id_)


if __name__ == "__main__":
    main(sys.argv[1:])
