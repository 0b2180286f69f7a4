"""What really became of each request: how far it came, and how much of its reply was there and arrived.

It is what the proxy handed on, which is the truth against which a caller's "unknown" is graded. A request
begins with the first upstream bytes after the start or after a reply's: turn taking, no protocol.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Exchange", "Exchanges"]

EXCHANGES_KEPT = 20_000


class Exchange:
    """One request and its reply, as the proxy saw them. Times are monotonic seconds, sizes bytes.

    `request` counts from 1 at the proxy while a fault is made there; 0 is what a server says unasked.
    `ended` is when the next one began or the connection was over, None while it lasts.
    """

    __slots__ = (
        "began",
        "bytes_delivered",
        "bytes_down",
        "bytes_sent",
        "bytes_up",
        "client",
        "connection",
        "ended",
        "head",
        "request",
        "verdicts",
    )

    def __init__(
        self, connection: int, request: int, client: str, began: float, head: bytes
    ) -> None:
        self.connection = connection
        self.request = request
        self.client = client
        self.began = began
        self.head = head
        self.bytes_sent = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.bytes_delivered = 0
        self.ended: float | None = None
        self.verdicts: dict[object, bool] = {}

    @property
    def passed_upstream(self) -> bool:
        """All that the client sent of the request was handed on: it may have been executed."""
        return self.bytes_up >= self.bytes_sent > 0

    @property
    def replied(self) -> bool:
        """The upstream said something to it: it was executed, or at least answered."""
        return self.bytes_down > 0

    @property
    def delivered(self) -> bool:
        """All that the upstream said so far was handed on to the client."""
        return self.bytes_delivered >= self.bytes_down > 0

    def __repr__(self) -> str:
        return (
            f"<Exchange {self.connection}.{self.request}: sent {self.bytes_sent}, up {self.bytes_up},"
            f" down {self.bytes_down}, delivered {self.bytes_delivered}>"
        )


class Exchanges:
    """The last exchanges, oldest first; `lost` counts those that are no longer kept."""

    def __init__(self, kept: int = EXCHANGES_KEPT) -> None:
        self._kept: deque[Exchange] = deque(maxlen=kept)
        self.lost = 0

    def add(self, exchange: Exchange) -> None:
        """Keep one that has begun."""
        self.lost += len(self._kept) == self._kept.maxlen
        self._kept.append(exchange)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)
