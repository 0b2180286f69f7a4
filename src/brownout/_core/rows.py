"""The latest ticks as the judge keeps them: each of them since something may have begun, else sums.

While no score is above zero nothing has begun, and all that is asked of the ticks is how many calls went
well lately. So an operation in which nothing is wrong keeps two sums of a few seconds.
"""

from __future__ import annotations

from math import inf
from operator import add
from typing import TYPE_CHECKING

from brownout._core.cell import Tick
from brownout._core.finding import Row
from brownout._core.modes import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

RECENT_SECONDS = 2.0
RECENT_CALLS = 20
MOMENT_SECONDS = (
    0.2  # as long a stall may be: the calls in flight together are counted over such a time
)
MOST = 512
_NONE: list[tuple[int, int]] = []
_NOBODY = [0] * COLUMNS


class Rows:
    """Ticks, oldest first."""

    __slots__ = ("_before", "_crowd", "_last")

    def __init__(self) -> None:
        self._before: list[Row] = []  # at most two sums
        self._last: list[Row] = []
        self._crowd: list[tuple[float, float]] = []  # in flight together, in the last moment

    def __iter__(self) -> Iterator[Row]:
        return iter([*self._before, *self._last])

    def __len__(self) -> int:
        return len(self._before) + len(self._last)

    def add(self, row: Row) -> None:
        """Another tick."""
        last = self._last
        if last and row.tick.idle and last[-1].tick.idle:
            told = row.tick._replace(seconds=last[-1].tick.seconds + row.tick.seconds)
            last[-1] = row._replace(tick=told)
        else:
            last.append(row)
        if len(last) > MOST:
            del last[0]
        crowd, oldest = self._crowd, row.tick.at - MOMENT_SECONDS
        while crowd and crowd[0][0] < oldest:
            del crowd[0]
        crowd.append((row.tick.at, row.together))

    def idle(self, tick: Tick) -> None:
        """A tick in which nothing happened, while nothing has begun."""
        if self._before and not self._last:
            row = self._before[-1]
            first = row.tick
            told = first._replace(at=tick.at, seconds=first.seconds + tick.seconds)
            if not _full(row):
                self._before[-1] = row._replace(tick=told)
                return
        self.add(Row(tick, _NOBODY, 1.0, ()))
        self.rest(-inf)

    @property
    def at(self) -> float:
        """The instant of the latest."""
        rows = self._last or self._before
        return rows[-1].tick.at if rows else 0.0

    @property
    def together(self) -> float:
        """How many calls were in flight at one moment, at most, in the last moment."""
        return max([1.0, *(many for _, many in self._crowd)])

    def rest(self, since: float) -> None:
        """Nothing has begun by now: keep sums. Of ticks before the instant `since` nothing is kept."""
        before = self._before
        for row in self._last:
            if row.tick.at <= since:
                continue
            last = before[-1] if before else None
            if last is None or last.tick.at <= since or _full(last):
                before.append(_sum(row))
                del before[:-2]
            else:
                before[-1] = _sum(last, row)
        self._last.clear()

    def recent(self, now: float, onset: float) -> tuple[Row, ...]:
        """Those of the last two seconds, or with the last twenty calls, but none before the onset."""
        oldest, least = now - RECENT_SECONDS, RECENT_CALLS
        rows: list[Row] = []
        for row in reversed([*self._before, *self._last]):
            if row.tick.at <= onset or (row.tick.at <= oldest and least <= 0):
                break
            rows.append(row)
            least -= sum(row.calls)  # who waits long for each call makes few
        return tuple(reversed(rows))


def _full(row: Row) -> bool:
    return row.tick.seconds >= RECENT_SECONDS and sum(row.calls) >= RECENT_CALLS


def _sum(row: Row, more: Row | None = None) -> Row:
    """A row, or two of them as one, without the single latencies."""
    tick = (more or row).tick
    if more is None:
        told = Tick(
            tick.at, tick.seconds, tick.started, _NONE_SETTLED, _NONE, _NONE, tick.ages, tick.queued,
            tick.waited,
        )  # fmt: skip
        return Row(told, row.calls, row.together, ())
    first = row.tick
    calls = row.calls if more.tick.idle else list(map(add, row.calls, more.calls))
    told = Tick(
        tick.at, first.seconds + tick.seconds, first.started + tick.started, _NONE_SETTLED, _NONE, _NONE,
        tick.ages, tick.queued, first.waited + tick.waited,
    )  # fmt: skip
    return Row(told, calls, max(row.together, more.together), ())


_NONE_SETTLED: list[int] = []
