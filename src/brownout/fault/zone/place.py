"""The places where a fault of a zone is made: the links between zones.

with Zones("a", "b", "shared") as zones:
    server = zones["shared"].popen(["redis-server", "--bind", zones["shared"].address])
    with zones.between("a", "shared").make(Partition()):
        ...
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from brownout._core.fault import Decision, Fault, Log
from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault.made import Made, Step
from brownout.fault.zone import ground, link
from brownout.fault.zone.holder import Holder
from brownout.fault.zone.zone import Zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["Link", "Zones"]

SECONDS = 3600.0
MTU = 65_000
PROBE_SECONDS = 0.25
REAP_SECONDS = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")


@dataclass(frozen=True, kw_only=True)
class Apart(Fault):
    """What zones are on record as, while they are up: their processes are apart from all networks."""

    kind: ClassVar[str] = "apart"


class Zones:
    """Named zones: network namespaces that no packet leaves, each linked with each other one.

    They are up inside the block, for `seconds` at the longest, and gone after it with every process in them,
    also if this process is killed. It takes root or a user namespace, and /dev/net/tun. `mtu` is the largest
    packet: the largest is the quickest, 1500 is as on a wire. `seed` decides whom a share hits.
    """

    def __init__(
        self, *names: str, mtu: int = MTU, seed: int = 0, seconds: float = SECONDS
    ) -> None:
        if problem := _wrong(names, mtu):
            raise ConfigurationError(f"Zones({', '.join(map(repr, names))}): {problem}")
        self._mtu = mtu
        self._seconds = seconds
        self.seed = seed
        self._names = names
        self._zones: dict[str, Zone] = {}
        self._holder: Holder | None = None
        self._made: Made | None = None
        self._faults: dict[str, Made | None] = {}  # None: it is being made
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Zones {', '.join(self._names)}, {'up' if self._made and self._made.active else 'not up'}>"

    def __getitem__(self, name: str) -> Zone:
        """Raises LookupError for a zone that there is not, or not yet."""
        if name in self._zones:
            return self._zones[name]
        why = f"there are: {', '.join(self._names)}" if self._zones else "they are not up"
        raise LookupError(f'no zone is called "{name}"; {why}')

    def __iter__(self) -> Iterator[Zone]:
        return iter(self._zones.values())

    def __len__(self) -> int:
        return len(self._zones)

    @property
    def mechanism(self) -> str:
        """By which right the zones were made; empty while they are not up."""
        return self._holder.by if self._holder else ""

    def between(self, first: str, second: str, *, target: str = "") -> Link:
        """The link between two zones; with "zone:port" as second, that to a service.

        Upstream is from the first to the second. `target` is the guarded target that is behind it, for
        `status`. Raises LookupError for a zone that there is not.
        """
        name, _, port = second.partition(":")
        if port and not (port.isdecimal() and 0 < int(port) < 65_536):
            raise ConfigurationError(f'"{second}" is a zone, or a zone and a port: "shared:6379"')
        if first == name:
            raise ConfigurationError(f'"{first}": a link is between two zones, not within one')
        return Link(self, self[first], self[name], int(port or 0), target)

    # -------------------------------------------------------------------------------- up and down

    def __enter__(self) -> Self:
        """Bring them up. Raises FaultRefused where that can't be done."""
        if self._made is not None:
            raise FaultRefused(f"{self!r}: zones are up once; make new ones")
        id_ = secrets.token_hex(6)
        self._made = Made(
            place=f"zones {', '.join(self._names)}",
            mechanism="network namespaces",
            fault=Apart(),
            seconds=self._seconds,
            name="zones",
            apply=lambda: self._up(id_),
            undo=self._down,
            undo_steps=[Step("zones", id=id_)],
        )
        self._made.make()
        return self

    def _up(self, id_: str) -> None:
        assert self._made is not None
        self._holder = Holder(id_, len(self._names), self._mtu)
        start = self._holder.identity
        self._made.add(Step("terminate", pid=start.pid, start=start.start))
        self._zones = {
            name: Zone(name, ground.address(number), self._holder, number)
            for number, name in enumerate(self._names, 1)
        }

    def _down(self) -> None:
        made = [each for each in self._faults.values() if each is not None]
        for each in made:
            len(each.log)  # which brings the last of it
        if self._holder is not None:
            self._holder.close()
        for each in made:
            each.undo()  # with the router they are gone

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo what is in force, end all processes, and see that they and the zones are gone."""
        if self._made is not None and self._holder is not None:
            self._made.undo()
            for zone in self._zones.values():
                zone.reap(REAP_SECONDS)

    # ----------------------------------------------------------------------------------- faults

    def _make(self, where: Link, fault: Fault, seconds: float, name: str | None) -> Made:
        link.check(fault)
        holder = self._holder
        if holder is None or self._made is None or not self._made.active:
            raise FaultRefused(f"{fault} at {where}: the zones are not up")
        key = self._reserved(name, fault.kind)
        way = (where.first.number, where.second.number)
        log = _Told(holder, key)

        def undo() -> None:
            if holder.alive:
                holder.ask("undo", key)
                len(log)  # which brings the last of it

        def gone() -> bool:
            if holder.alive and not _passes(holder, key, way):
                return False
            self._faults.pop(key, None)
            return True

        made = Made(
            place=str(where),
            mechanism="userspace link",
            fault=fault,
            seconds=seconds,
            name=key,
            target=where.target,
            log=log,
            apply=lambda: holder.ask("make", key, fault, way, where.port, self.seed),
            undo=undo,
            gone=gone,
        )
        try:
            self._faults[key] = made.make()
        except BaseException:
            if not made.active:
                self._faults.pop(key, None)
            raise
        return made

    def _reserved(self, name: str | None, kind: str) -> str:
        """A name that no fault in force has, kept for this one."""
        with self._lock:
            free = name or kind
            number = 1
            while free in self._faults:
                if name is not None:
                    raise ConfigurationError(f'a fault named "{name}" is in force in these zones')
                number += 1
                free = f"{kind}-{number}"
            self._faults[free] = None
            return free


class Link:
    """The way between two zones, or of one zone to a service in another."""

    def __init__(self, zones: Zones, first: Zone, second: Zone, port: int, target: str) -> None:
        self._zones = zones
        self.target = target
        self.first = first
        self.second = second
        self.port = port

    def __str__(self) -> str:
        return f"zone {self.first.name} -> {self.second.name}{f':{self.port}' if self.port else ''}"

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Make a fault: Partition, Loss, Latency, Bandwidth or SlowHandshake; the last made comes last.

        When it is undone a packet is seen to pass in both directions. Raises ConfigurationError for another
        kind, FaultRefused if the zones are not up.
        """
        return self._zones._make(self, fault, seconds, name)


def _passes(holder: Holder, key: str, way: tuple[int, int]) -> bool:
    """Whether a fault is gone: no packet is decided by it, and one sent in each direction arrives."""
    names = holder.ask("names", way)
    if key in names or names:  # where another is in force, a packet would meet that
        return key not in names
    tokens = secrets.token_hex(8), secrets.token_hex(8)
    for token, each in zip(tokens, (way, way[::-1]), strict=True):
        holder.ask("probe", each, token.encode())
    end = time.monotonic() + PROBE_SECONDS
    while not all(holder.ask("arrived", token) for token in tokens):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


class _Told(Log):
    """The decisions of a fault, brought here from the router when somebody looks."""

    def __init__(self, holder: Holder, name: str) -> None:
        super().__init__()
        self._holder = holder
        self._name = name
        self._next = 0

    def _bring(self) -> None:
        with suppress(FaultRefused):  # it has died: what was brought is what there is
            while self._holder.alive:
                told, lost = self._holder.ask("told", self._name, self._next)
                self.lost += max(0, lost - self._next)
                self._next = max(self._next, lost) + len(told)
                for one in told:
                    self.add(Decision(*one))
                if not told:
                    return

    def __iter__(self) -> Iterator[Decision]:
        self._bring()
        return super().__iter__()

    def __len__(self) -> int:
        self._bring()
        return super().__len__()


def _wrong(names: tuple[str, ...], mtu: int) -> str:
    if not 1 <= len(names) <= ground.MOST_ZONES:
        return f"1 to {ground.MOST_ZONES} zones"
    if len(set(names)) < len(names):
        return "each has a name of its own"
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        return f"{odd[0]!r} is no name: letters, digits and .-_ , 31 at most"
    if not 576 <= mtu <= 65_535:
        return f"mtu={mtu!r} is from 576 to 65535 bytes"
    return ""
