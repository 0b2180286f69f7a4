"""The kinds of fault: what is done. Whom it hits and when is what they all have in common (`Fault`).

A place refuses a kind that it has no mechanism for. `stream` is the direction that bytes flow in:
"upstream" is the request, "downstream" the reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal

from brownout._core.fault import Amount, Fault

from .disk.kind import Error, Full, Old, Stored, no_errno

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AbortConnections",
    "Bandwidth",
    "Corrupt",
    "Cut",
    "Drop",
    "Duplicate",
    "Error",
    "ExhaustFiles",
    "FillBacklog",
    "Freeze",
    "Full",
    "Hang",
    "Kill",
    "Latency",
    "Loss",
    "NeverAccept",
    "Old",
    "Partition",
    "Pause",
    "Refuse",
    "Slice",
    "SlowClose",
    "SlowHandshake",
    "Stall",
    "Starve",
    "Status",
    "Timeout",
    "Wrong",
]


# -------------------------------------------------------------------------------- bytes are late


@dataclass(frozen=True, kw_only=True)
class Latency(Stored):
    """Every piece of data comes so many seconds later, in order. Several add up.

    Of a disk: each operation takes so much longer.
    """

    kind: ClassVar[str] = "latency"

    seconds: float | Amount
    operations: tuple[str, ...] = ("read", "write", "fsync")


@dataclass(frozen=True, kw_only=True)
class Bandwidth(Fault):
    """No more than so many bytes a second pass, for each connection; with 0 none do."""

    kind: ClassVar[str] = "bandwidth"

    bytes_per_second: float


@dataclass(frozen=True, kw_only=True)
class Slice(Fault):
    """Data comes in pieces of so many bytes, each `seconds` after the one before: a drip."""

    kind: ClassVar[str] = "slice"

    bytes: float | Amount
    seconds: float | Amount = 0.0

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        size = self.bytes.value if isinstance(self.bytes, Amount) else self.bytes
        if size < 1:
            yield f"bytes={self.bytes!r} is 1 or more"


@dataclass(frozen=True, kw_only=True)
class Hang(Stored):
    """Data is held and nothing comes, until `seconds` after the first held byte or until it is undone.

    Then all comes late and in order: a black hole that heals. Of a disk: the operation hangs, and after
    `seconds` it fails with the error `errno`. Nothing ends it before, as in a real disk, not even SIGKILL;
    with `killable` a signal does.
    """

    kind: ClassVar[str] = "hang"

    seconds: float | Amount = inf
    errno: str = "EIO"
    killable: bool = False

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        yield from no_errno(self.errno)


@dataclass(frozen=True, kw_only=True)
class SlowClose(Fault):
    """The end of the stream comes so many seconds late."""

    kind: ClassVar[str] = "slow_close"

    seconds: float | Amount


# ------------------------------------------------------------------------------- bytes are lost


@dataclass(frozen=True, kw_only=True)
class Drop(Fault):
    """Data of the stream is lost, and the end of it held back: that direction is silent.

    Of "downstream" alone the reply is lost *after* it was executed; of "both", from the first byte on, the
    target accepts and then says nothing.
    """

    kind: ClassVar[str] = "drop"


@dataclass(frozen=True, kw_only=True)
class Timeout(Fault):
    """Data is lost, and the connection closed `seconds` after the last of it; 0: only when it is undone."""

    kind: ClassVar[str] = "timeout"

    seconds: float | Amount = 0.0


@dataclass(frozen=True, kw_only=True)
class Corrupt(Fault):
    """So large a share of the bytes is changed, each into another one."""

    kind: ClassVar[str] = "corrupt"

    share_of_bytes: float

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.share_of_bytes > 1:
            yield f"share_of_bytes={self.share_of_bytes!r} is a part of 1, from 0 to 1"


# -------------------------------------------------------------------------- connections are ended


@dataclass(frozen=True, kw_only=True)
class Cut(Fault):
    """The connection is reset (a real RST) or closed (FIN), as soon as it is accepted or in the midst.

    At "request" or "reply" once `after_bytes` of that have passed, with 0 before its first byte does; and
    then `after_seconds` later. That is its direction: `stream` says nothing here. At "accept" it hits
    connections accepted from then on, and open ones that are not yet `after_seconds` old.
    """

    kind: ClassVar[str] = "cut"

    how: Literal["reset", "close"] = "reset"
    at: Literal["accept", "request", "reply"] = "request"
    after_bytes: int = 0
    after_seconds: float | Amount = 0.0

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.how not in ("reset", "close"):
            yield f'how={self.how!r} is "reset" or "close"'
        if self.at not in ("accept", "request", "reply"):
            yield f'at={self.at!r} is "accept", "request" or "reply"'
        if self.at == "accept" and (self.after_bytes or self.per == "request" or self.match):
            yield 'at="accept" no bytes have come: after_bytes, per="request" and match say nothing'


# ------------------------------------------------------------------------------ answers are bad

BODY_MOST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Status(Fault):
    """The answer is this one, and the request is not executed.

    `retry_after` (seconds) is told in a Retry-After header, as a 429 or a 503 has it.
    """

    kind: ClassVar[str] = "status"

    code: int
    retry_after: float | None = None
    body: bytes = b""

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 200 <= self.code <= 599:
            yield f"code={self.code!r} is the status of an answer, from 200 to 599"
        if self.retry_after is not None and not self.retry_after < inf:
            yield f"retry_after={self.retry_after!r} is a number of seconds"
        yield from _body_wrong(self.body)


@dataclass(frozen=True, kw_only=True)
class Stall(Fault):
    """The body of the answer stops after so many bytes of it, and goes on `seconds` later."""

    kind: ClassVar[str] = "stall"

    after_bytes: int = 0
    seconds: float | Amount = inf


@dataclass(frozen=True, kw_only=True)
class Wrong(Fault):
    """The request is executed, and the answer has this body instead of its own."""

    kind: ClassVar[str] = "wrong"

    body: bytes

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        yield from _body_wrong(self.body)


@dataclass(frozen=True, kw_only=True)
class Duplicate(Fault):
    """The request is executed so many times, one after another, and answered once: by the last answer.

    So it is when something between lost the first answer and tried again. A request of more than 1 MiB
    can't be kept to be sent again: it is executed once, and the log says so.
    """

    kind: ClassVar[str] = "duplicate"

    times: int = 2

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 2 <= self.times <= 100:
            yield f"times={self.times!r} is from 2 to 100"


def _body_wrong(body: bytes) -> Iterator[str]:
    if not isinstance(body, bytes):
        yield f"body={body!r} is bytes"
    elif len(body) > BODY_MOST:
        yield f"a body of {len(body)} bytes is too long: 1 MiB at most"


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


# ------------------------------------------------------------------------------- packets are lost


@dataclass(frozen=True, kw_only=True)
class Partition(Fault):
    """Packets of a link are lost without a word, or refused: with an RST, or port unreachable for UDP.

    Of one stream alone, the other goes on: with "downstream" the request is executed and its reply lost.
    With `connections="new"` no new TCP connection is made and open ones live on. A `share` below 1 is of
    the connections, old and new: a path that is bad for some.
    """

    kind: ClassVar[str] = "partition"

    how: Literal["drop", "refuse"] = "drop"
    connections: Literal["all", "new"] = "all"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.how not in ("drop", "refuse"):
            yield f'how={self.how!r} is "drop" or "refuse"'
        if self.connections not in ("all", "new"):
            yield f'connections={self.connections!r} is "all" or "new"'


@dataclass(frozen=True, kw_only=True)
class Loss(Fault):
    """Packets of a link are lost, each by itself: `share`, `nth` and `first` are of a stream's packets."""

    kind: ClassVar[str] = "loss"


@dataclass(frozen=True, kw_only=True)
class SlowHandshake(Fault):
    """A new TCP connection's first packet (SYN) comes so many seconds later; open ones are as quick as ever.

    `stream` is the way that it takes: "upstream", from the first zone of a link, or "downstream", or both.
    """

    kind: ClassVar[str] = "slow_handshake"

    seconds: float | Amount
