"""The latest attempts of one operation that bear labels: of which backend, connection or shard they were.

While all is well nobody asks for them, so what a labelled attempt costs is one entry of a short queue. When
something is wrong they say whose calls are bad.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.sketch import bucket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brownout._core.attempt import Attempt
    from brownout._core.outcome import OutcomeClass

KEPT = 128  # some 14 KB an operation, of those that need any


class Labelled(NamedTuple):
    """What one attempt showed, and when; `class_` is None while it waits, `bucket` that of its latency."""

    at: float
    labels: tuple[tuple[str, str], ...]
    class_: OutcomeClass | None
    bucket: int


class Labels:
    """The latest of them. Any thread adds to it."""

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        self._ended: deque[Labelled] | None = None  # most operations need none

    def add(self, attempt: Attempt, class_: OutcomeClass, seconds: float, now: float) -> None:
        """An attempt has ended."""
        if self._ended is None:
            self._ended = deque(maxlen=KEPT)
        self._ended.append(Labelled(now, attempt.labels, class_, bucket(seconds)))

    def forget(self) -> None:
        """Forget them all."""
        self._ended = None

    def since(self, at: float, waiting: Iterable[Labelled]) -> list[Labelled]:
        """Those that ended after an instant, or still wait."""
        ended = () if self._ended is None else tuple(self._ended)
        return [*(one for one in ended if one.at > at), *waiting]
