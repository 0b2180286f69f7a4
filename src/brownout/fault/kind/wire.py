"""What a proxy, a link or a disk does to bytes and to connections."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal

from brownout._core.fault import Amount, Fault
from brownout.fault.disk.kind import Stored, no_errno

if TYPE_CHECKING:
    from collections.abc import Iterator


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
