"""Others' rules on the same streams: what they find, how late, and how often for nothing.

The rules are written out here, with their usual settings; those that need a usual are *given* one, from all
healthy data of the stream, its future included. Each says at what instants it would have tripped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from statistics import mean, pstdev
from typing import TYPE_CHECKING, NamedTuple

from brownout import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from brownout.replay import Record

_BAD = (OutcomeClass.FAILURE, OutcomeClass.OVERLOAD, OutcomeClass.CONNECT, OutcomeClass.UNKNOWN)
MERGED_SECONDS = 30.0  # trips within so long are one alarm


class Calls(NamedTuple):
    """The calls of one target in the order of their ends; `well` says that no fault was near."""

    ends: list[float]
    seconds: list[float]
    bad: list[bool]
    well: list[bool]
    segments: list[tuple[float, float]]


def calls_of(
    records: Sequence[Record], well: Callable[[float], bool], segments: list[tuple[float, float]]
) -> Calls:
    """The records of one target."""
    rows = sorted(
        (
            one.start_seconds + one.duration_seconds,
            one.duration_seconds,
            one.outcome in _BAD,
            one.start_seconds,
        )
        for one in records
    )
    return Calls(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [well(row[3]) for row in rows],
        segments,
    )


def consecutive(n: int) -> Callable[[Calls], list[float]]:
    """So many bad calls in a row (Envoy's and most breakers' default is 5)."""

    def rule(calls: Calls) -> list[float]:
        trips, row = [], 0
        for end, bad in zip(calls.ends, calls.bad, strict=True):
            row = row + 1 if bad else 0
            if row >= n:
                trips.append(end)
        return trips

    return rule


def half_of(n: int) -> Callable[[Calls], list[float]]:
    """Half of the last n calls are bad (resilience4j)."""

    def rule(calls: Calls) -> list[float]:
        trips, count = [], 0
        for index, bad in enumerate(calls.bad):
            count += bad - (calls.bad[index - n] if index >= n else 0)
            if index >= n - 1 and count >= n / 2:
                trips.append(calls.ends[index])
        return trips

    return rule


def moving(times: float, share: float) -> Callable[[Calls], list[float]]:
    """The exponentially moving average of latency is so many times the mean."""

    def rule(calls: Calls) -> list[float]:
        usual = [s for s, well in zip(calls.seconds, calls.well, strict=True) if well]
        if len(usual) < 30:
            return []
        limit, trips = times * mean(usual), []
        for begin, end in calls.segments:
            value = limit / times
            for index in range(bisect_left(calls.ends, begin), bisect_left(calls.ends, end + 5)):
                value += share * (calls.seconds[index] - value)
                if value > limit:
                    trips.append(calls.ends[index])
        return trips

    return rule


def _windows(calls: Calls, span: float) -> Iterator[tuple[float, int, int]]:
    for begin, end in calls.segments:
        at = begin + span
        while at < end + 1:
            yield at, bisect_left(calls.ends, at - span), bisect_left(calls.ends, at)
            at += 1.0


def sigmas(k: float, span: float) -> Callable[[Calls], list[float]]:
    """The mean latency of a window is so many standard deviations above that of healthy windows."""

    def rule(calls: Calls) -> list[float]:
        means = [
            mean(calls.seconds[a:b])
            for _, a, b in _windows(calls, span)
            if b - a >= 3 and all(calls.well[a:b])
        ]
        if len(means) < 3:
            return []
        limit = mean(means) + k * pstdev(means)
        return [
            at
            for at, a, b in _windows(calls, span)
            if b - a >= 3 and mean(calls.seconds[a:b]) > limit
        ]

    return rule


def p90(times: float, span: float) -> Callable[[Calls], list[float]]:
    """The 90th percentile of a window is so many times the healthy one."""

    def rule(calls: Calls) -> list[float]:
        usual = sorted(s for s, well in zip(calls.seconds, calls.well, strict=True) if well)
        if len(usual) < 30:
            return []
        limit = times * usual[int(0.9 * len(usual))]
        trips = []
        for at, a, b in _windows(calls, span):
            window = calls.seconds[a:b]
            slow = sum(one > limit for one in window)
            if len(window) >= 5 and slow > 0.1 * len(window):
                trips.append(at)
        return trips

    return rule


def success_rate(
    calls: Calls, most: float = 0.85, fewest: int = 50, span: float = 10.0
) -> list[float]:
    """Envoy's outlier detection where a target has no peers: 85 % of at least 50 calls fail in 10 s.

    Its other rule, below the mean of five hosts by 1.9 standard deviations, needs five hosts.
    """
    trips = []
    for begin, end in calls.segments:
        at = begin + span
        while at < end + span:
            a, b = bisect_left(calls.ends, at - span), bisect_left(calls.ends, at)
            if b - a >= fewest and sum(calls.bad[a:b]) >= most * (b - a):
                trips.append(at)
            at += span
    return trips


RULES: dict[str, Callable[[Calls], list[float]]] = {
    "5 consecutive errors": consecutive(5),
    "50 % of the last 100 fail": half_of(100),
    "EWMA > 3 x mean": moving(3, 0.05),
    "10-s mean > mean + 3 sd": sigmas(3, 10.0),
    "30-s p90 > 2 x usual": p90(2, 30.0),
    "Envoy's success rate": success_rate,
}


def alarms(trips: Sequence[float]) -> int:
    """How many alarms they are, if those that follow soon are one."""
    count, last = 0, float("-inf")
    for at in sorted(trips):
        count += at - last > MERGED_SECONDS
        last = at
    return count


def first(trips: Sequence[float], begin: float, end: float) -> float:
    """The first trip in a span; infinite if there is none."""
    ordered = sorted(trips)
    at = bisect_right(ordered, begin)
    return ordered[at] if at < len(ordered) and ordered[at] < end else float("inf")


__all__ = ["RULES", "Calls", "alarms", "calls_of", "first"]
