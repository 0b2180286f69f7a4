"""The bank: one score for each mode, added up call by call, and its table, by column.

Every score is a CUSUM: it never falls below zero. A tick's counts are multiplied into the table a column
at a time, so the work is that of the columns that occur, not of the calls. Two things make it cheap while
nothing is wrong, and both are exact. A table depends on a few numbers of the usual alone, so operations
whose usual is alike share one. And a tick is skipped that can't raise any score from zero: if the fast
answers in it outweigh, in every mode, each slower one.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import repeat
from operator import add, mul
from typing import TYPE_CHECKING

from brownout._core.baseline import cold
from brownout._core.modes import COLUMNS, Mode, modes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from brownout._core.baseline import Baseline

TABLES = 256  # kept; one has some 40 KiB
_NEVER = 1e18  # not infinite: no call of it is none to outweigh


class Table:
    """The modes against a usual: what a call in each column adds to each score.

    `outweighed[c]` is how many calls of column 0 outweigh one of column c in every mode (1e18: none do).
    """

    __slots__ = ("columns", "modes", "nulls", "outweighed", "told", "zeros")

    def __init__(self, table: list[Mode], nulls: list[tuple[float, ...]]) -> None:
        self.modes = tuple(table)
        self.nulls = tuple(nulls)
        self.columns = tuple(tuple(mode.nats[c] for mode in table) for c in range(COLUMNS))
        self.told = tuple(tuple(mode.log_p[c] for mode in table) for c in range(COLUMNS))
        self.zeros = (0.0,) * len(table)
        fast = self.columns[0]
        self.outweighed = tuple(_outweighed(column, fast) for column in self.columns)

    def weigh(self, counts: Iterable[tuple[int, float]]) -> Sequence[float]:
        """What so many calls of each column add to each score."""
        return _sum(self.columns, counts) or self.zeros

    def fits(self, counts: Iterable[tuple[int, float]]) -> Sequence[float]:
        """How well each mode explains so many calls of each column: the logarithm of its likelihood."""
        return _sum(self.told, counts) or self.zeros

    def calm(self, calls: Sequence[int]) -> bool:
        """Whether no score that is zero can rise by these calls. It may say no where that is so."""
        if calls[0]:
            owed: float = sum(map(mul, calls[1:], self.outweighed[1:]))
            return owed <= calls[0]
        return not any(calls)


def _sum(
    columns: tuple[tuple[float, ...], ...], counts: Iterable[tuple[int, float]]
) -> Sequence[float]:
    total: Sequence[float] = ()
    for index, count in counts:
        column: Iterable[float] = columns[index]
        if count != 1:
            column = map(mul, repeat(count), column)
        total = list(map(add, total, column)) if total else list(column)
    return total


def _outweighed(column: Sequence[float], fast: Sequence[float]) -> float:
    """Rounded up, lest a sum in another order differs in its last digit."""
    most = 0.0
    for slow, well in zip(column, fast, strict=True):
        if slow > 0:
            most = max(most, slow / -well if well < 0 else _NEVER)
    return most * (1 + 1e-9) + 1e-9 if most else (0.0 if max(column) < 0 else 1e-9)


@lru_cache(maxsize=TABLES)
def _made(
    tails: tuple[float, ...],
    rough: tuple[float, ...],
    errors: float,
    overload: float,
    refused: float,
    silent: float,
    n: int,
    fast: int,
) -> Table:
    base = cold(1.0)._replace(
        n=n, tails=tails, rough=rough, errors=errors, overload=overload, refused=refused, silent=silent,
        fast=fast,
    )  # fmt: skip
    return Table(*modes(base))


def table(base: Baseline) -> Table:
    """The table of a usual, shared by all that are alike."""
    what = (base.tails, base.rough, base.errors, base.overload, base.refused, base.silent)
    return _made(*what, 0 if base.cold else 1, int(base.fast > 0))


class Bank:
    """The scores, and when each was last zero. While `calm` all of them are."""

    __slots__ = ("_since", "_zero", "calm", "scores")

    def __init__(self, size: int, now: float) -> None:
        self.scores: Sequence[float] = (0.0,) * size
        self._zero: Sequence[float] = ()
        self._since = now
        self.calm = True

    def pass_(self, now: float) -> None:
        """Nothing rises by now. Only while calm."""
        self._since = now

    def add(self, gains: Sequence[float], most: float, now: float) -> None:
        """Add to each score, down to zero and up to `most`."""
        sums = list(map(add, self.scores, gains))
        if max(sums) <= 0.0:
            self.calm, self._since = True, now
            self.scores, self._zero = (0.0,) * len(sums), ()
            return
        if self.calm:
            self.calm, self._zero = False, (self._since,) * len(sums)
        self._zero = [zero if s > 0.0 else now for s, zero in zip(sums, self._zero, strict=True)]
        self.scores = [(min(most, s)) if s > 0.0 else 0.0 for s in sums]

    def zero(self, index: int) -> float:
        """The instant at which a score was zero the last time."""
        return self._since if self.calm else self._zero[index]

    def keep(self, first: int, size: int, now: float) -> None:
        """Another table of `size` modes: keep the first scores, the others begin anew."""
        rest = size - first
        zero = [self.zero(index) for index in range(first)]
        self.scores = [*self.scores[:first], *(0.0,) * rest]
        self._zero = [*zero, *(now,) * rest]
        self.calm = max(self.scores) <= 0.0
        self._since = now
