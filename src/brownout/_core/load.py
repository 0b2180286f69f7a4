"""Load: whether the calls made explain what is suffered.

They do if clearly more are made than usual while the target still answers; or if calls take the longer
the more are in flight when they begin. A server that is merely slow shows no such thing, since calls that
come by chance see the average (Poisson arrivals see time averages); a queue shows it clearly. Once load
explains it, it does so for as long as the load or the backlog lasts: a queue that has collapsed and says
nothing any more is still overloaded.
"""

from __future__ import annotations

from bisect import bisect_right
from math import atanh, log, sqrt
from typing import TYPE_CHECKING

from brownout._core.modes import OVERLOAD, WAITING
from brownout._core.sketch import middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.finding import Row

SURGE = 1.25  # load explains slowness only if it is above the usual by so much,
SURGE_NATS = 6.0  # and beyond chance
RANK = 0.6  # or if latency and calls in flight rise together so clearly,
RANK_SIGMAS = 4.0
RANK_CALLS = 30
BODY = 0.25  # and no more of the calls than so many are as fast as ever
SAMPLES = 300
LOOK_SECONDS = 0.2  # so often at first, then ever more seldom
BACKLOG = 2.0  # of what is usually in flight


class Load:
    """Whether load explains it, of one trouble: "surge", "queue", or "" if it doesn't."""

    __slots__ = ("_look", "why")

    def __init__(self) -> None:
        self.why = ""
        self._look = 0.0

    def weigh(
        self,
        kind: str,
        rows: Sequence[Row],
        history: Sequence[Row],
        waiting: Sequence[int],
        usual: tuple[float, float],
        onset: float,
    ) -> str:
        """Look again. `usual` are the calls a second, and in flight."""
        calls = [sum(column) for column in zip(*(row.calls for row in rows), strict=True)]
        rate, flying = usual
        now = rows[-1].tick.at
        more = surge(rows, rate)
        if kind == "overload" or (more and sum(calls[:9]) > sum(waiting[WAITING + 1 :])):
            self.why = "surge"
        elif self.why:
            if not more and not calls[OVERLOAD] and rows[-1].flying <= BACKLOG * max(flying, 1.0):
                self.why = ""
        elif kind in {"shift", "tail", "silent"} and now >= self._look:
            self._look = now + max(LOOK_SECONDS, 0.2 * (now - onset))
            if calls[0] <= BODY * sum(calls) and queue(rows, history, onset):
                self.why = "queue"
        return self.why


def surge(rows: Sequence[Row], rate: float) -> bool:
    """Whether more calls are made than usual, by a quarter and beyond chance (Poisson, 6 nats)."""
    if all(row.together < 2 for row in rows):
        return False  # one call at a time is no load
    made = sum(row.tick.started for row in rows)
    usual = rate * sum(row.tick.seconds for row in rows)
    if not usual or made <= SURGE * usual:
        return False
    return made * log(made / usual) - (made - usual) > SURGE_NATS


def queue(rows: Sequence[Row], history: Sequence[Row], onset: float) -> bool:
    """Whether calls take the longer the more are in flight when they begin (Spearman's rank correlation)."""
    began = [row.tick.at for row in history]
    flying: list[float] = []
    took: list[float] = []
    every = max(1, sum(sum(row.calls[:6]) for row in rows) // SAMPLES)
    for row in rows:
        for index, count in row.tick.answered:
            seconds = middle(index)
            start = row.tick.at - row.tick.seconds / 2 - seconds
            if start < onset:
                continue
            at = bisect_right(began, start)
            if 0 < at < len(history):
                before, after = history[at - 1], history[at]
                part = (start - began[at - 1]) / max(began[at] - began[at - 1], 1e-9)
                at_start = before.flying + part * (after.flying - before.flying)
                for _ in range(-(-count // every)):
                    flying.append(at_start)
                    took.append(seconds)
    n = len(took)
    if n < RANK_CALLS:
        return False
    r = correlation(ranks(flying), ranks(took))
    return r > RANK and atanh(min(r, 0.999)) * sqrt(n - 3) > RANK_SIGMAS


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value; equal ones share the middle of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    first = 0
    for last in range(1, len(order) + 1):
        if last == len(order) or values[order[last]] != values[order[first]]:
            for index in order[first:last]:
                found[index] = (first + last - 1) / 2
            first = last
    return found


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's; 0 if one of them is always the same."""
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return both / sqrt(spread) if spread > 0 else 0.0
