"""What a link between zones does to packets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from brownout._core.fault import Amount, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator


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
