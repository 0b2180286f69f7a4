"""What is done to a whole: a listener, a process, a replica, a pool."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar

from brownout._core.fault import Fault, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class _OfListener(Fault):
    """A fault of the listener, which is one for all connections."""

    whole: ClassVar[str] = "listener"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        told = [
            name
            for name in ("share", "per", "nth", "first", "client", "match", "header", "stream")
            if getattr(self, name) != type(self).__dataclass_fields__[name].default
        ]
        if told:
            yield f"{', '.join(told)}: it is done to the {self.whole}, so to everyone"


@dataclass(frozen=True, kw_only=True)
class Refuse(_OfListener):
    """Connecting is refused, and open connections are reset as by a process that died.

    With `keep_open` these live on, as when only the listener is closed. The port stays reserved.
    """

    kind: ClassVar[str] = "refuse"

    keep_open: bool = False


@dataclass(frozen=True, kw_only=True)
class NeverAccept(_OfListener):
    """Nobody accepts and the backlog is full: connecting hangs. Open connections live on."""

    kind: ClassVar[str] = "never_accept"


@dataclass(frozen=True, kw_only=True)
class FillBacklog(_OfListener):
    """Its queue of connections that nobody has accepted is kept full: connecting hangs.

    It takes a target that accepts late or not at all; one that always accepts at once is not filled.
    """

    kind: ClassVar[str] = "fill_backlog"


# ------------------------------------------------------------------------------ processes suffer


@dataclass(frozen=True, kw_only=True)
class _OfProcess(_OfListener):
    """A fault of a whole process."""

    whole: ClassVar[str] = "process"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.schedule.ramp:
            yield "schedule: a process suffers or does not; ramp says nothing"


@dataclass(frozen=True, kw_only=True)
class Pause(_OfProcess):
    """The process is stopped for so many seconds, or until it is undone.

    The kernel goes on: connecting succeeds, then nothing comes. Its parent can see it (SIGCHLD).
    """

    kind: ClassVar[str] = "pause"

    seconds: float = inf


@dataclass(frozen=True, kw_only=True)
class Kill(_OfProcess):
    """The process is killed, without a chance to tidy up. To bring it back is its parent's part."""

    kind: ClassVar[str] = "kill"


@dataclass(frozen=True, kw_only=True)
class Freeze(_OfProcess):
    """The process and all that descend from it get no CPU, and can't see why."""

    kind: ClassVar[str] = "freeze"


@dataclass(frozen=True, kw_only=True)
class Starve(_OfProcess):
    """The process and all that descend from it share so much of one CPU: 0.05 is 5 % of it.

    In each period they run until the share is used up and then wait for the next: a short period is slow
    all the time, a long one is fast and then stands still.
    """

    kind: ClassVar[str] = "starve"

    cpu_share: float
    period_seconds: float = 0.1

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 0.001 <= self.period_seconds <= 1:
            yield f"period_seconds={self.period_seconds!r} is from 0.001 to 1: so the kernel wants it"
        elif not 0.001 <= self.cpu_share * self.period_seconds < inf:
            least = 0.001 / self.period_seconds
            yield (
                f"cpu_share={self.cpu_share!r} of {self.period_seconds:g} s is less than the 1 ms that the "
                f"kernel gives at least: take {least:g} or more, or a longer period"
            )


@dataclass(frozen=True, kw_only=True)
class ExhaustFiles(_OfProcess):
    """The process can open `left` more files or sockets, then none (EMFILE); what is open stays open."""

    kind: ClassVar[str] = "exhaust_files"

    left: int = 0


@dataclass(frozen=True, kw_only=True)
class AbortConnections(Fault):
    """The TCP connections that the process has now are reset: its peers, and it, get an error at once.

    `client` chooses by the peer's address, `share`, `nth` and `first` among them, in the order of their
    ports. It is done once.
    """

    kind: ClassVar[str] = "abort_connections"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.per != "connection" or self.match or self.header or self.stream != "both":
            yield "a whole connection is reset: per, match, header and stream say nothing"


# --------------------------------------------------------------------------- a copy falls behind


@dataclass(frozen=True, kw_only=True)
class _Steady(_OfListener):
    """A fault that hits the whole, from its making to its undo."""

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.schedule != Schedule():
            yield "schedule: it is in force from its making to its undo"


@dataclass(frozen=True, kw_only=True)
class _OfReplica(_Steady):
    """A fault between a primary and its replica, which goes on answering."""

    whole: ClassVar[str] = "replica"


@dataclass(frozen=True, kw_only=True)
class PauseReplay(_OfReplica):
    """The replica receives what the primary commits, and applies none of it."""

    kind: ClassVar[str] = "pause_replay"


@dataclass(frozen=True, kw_only=True)
class DelayReplay(_OfReplica):
    """What the primary commits is seen at the replica so many seconds later."""

    kind: ClassVar[str] = "delay_replay"

    seconds: float

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 0.001 <= self.seconds <= 86_400:
            yield f"seconds={self.seconds!r} is from 0.001 to 86400 (a day)"


@dataclass(frozen=True, kw_only=True)
class FreezeReceiver(_OfReplica):
    """Nothing arrives at the replica, and neither side says so: the connection is up, the bytes wait."""

    kind: ClassVar[str] = "freeze_receiver"


@dataclass(frozen=True, kw_only=True)
class CutStreaming(_OfReplica):
    """The replica loses its connection to the primary, and gets no other."""

    kind: ClassVar[str] = "cut_streaming"


# ------------------------------------------------------------------------------ a pool is used up


@dataclass(frozen=True, kw_only=True)
class HoldConnections(_Steady):
    """So many connections of a pool are taken out of it and not given back."""

    kind: ClassVar[str] = "hold_connections"
    whole: ClassVar[str] = "pool"

    count: int

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 1 <= self.count <= 10_000:
            yield f"count={self.count!r} is from 1 to 10000"
