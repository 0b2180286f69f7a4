"""Hostile healthy traffic, as ticks for the judge: six kinds of noise, made by numpy in virtual time.

The service answers in 20 ms (lognormal, sd 0.5; 1 % five times slower), fails 0.2 %, times out after 1 s,
and stalls as a whole for 50 to 150 ms about every 20 s. The kinds change one thing each: no stalls; a
Pareto tail (1.8); the load swings by 40 % in ten minutes; the latency by 15 % in a quarter of an hour;
the latency wanders (AR(1), sd 10 %, 5 s memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from brownout._core.cell import CLASSES, Tick
from brownout._core.operation import AHEAD, AHEAD_CALLS, AHEAD_SECONDS, TOGETHER
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, OFFSET, PER_OCTAVE, TINY
from brownout._core.target import FOLD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

KINDS = ("plain", "no stalls", "Pareto tail", "load swings", "latency swings", "latency wanders")
TIMEOUT = 1.0
FAIL_SHARE = 0.002


class Calls(NamedTuple):
    """Calls in the order in which they begin: instants, latencies, and which of them failed."""

    begun: Floats
    seconds: Floats
    failed: NDArray[np.bool_]


def calls(
    kind: str,
    rate: float,
    seconds: float,
    seed: int,
    slower: Callable[[Floats], Floats] | None = None,
) -> Calls:
    """So many seconds of healthy calls of a kind; `slower` gives the factor of each call's latency."""
    chance = np.random.default_rng((seed, KINDS.index(kind), int(rate)))
    n = int(chance.poisson(rate * seconds))
    begun = np.sort(chance.uniform(0, seconds, n))
    if kind == "load swings":
        begun = begun[chance.random(n) < 0.6 + 0.4 * np.sin(2 * np.pi * begun / 600)]
        n = len(begun)
    took = _latencies(kind, begun, chance)
    if kind == "latency wanders":
        took *= np.exp(np.interp(begun, *_wander(seconds, chance)))
    if slower is not None:
        took *= slower(begun)
    failed = chance.random(n) < FAIL_SHARE
    if kind != "no stalls":
        took = _stalled(begun, took, seconds, chance)
    return Calls(begun, np.minimum(took, TIMEOUT), failed & (took < TIMEOUT))


def _latencies(kind: str, begun: Floats, chance: np.random.Generator) -> Floats:
    n = len(begun)
    if kind == "Pareto tail":
        return 0.01 * (1 + chance.pareto(1.8, n))
    took = chance.lognormal(np.log(0.02), 0.5, n)
    took[chance.random(n) < 0.01] *= 5
    if kind == "latency swings":
        took *= 1 + 0.15 * np.sin(2 * np.pi * begun / 900)
    return took


def _wander(seconds: float, chance: np.random.Generator) -> tuple[Floats, Floats]:
    step, memory, spread = 0.5, 5.0, 0.10
    at = np.arange(0.0, seconds + 1, step)
    keep = np.exp(-step / memory)
    noise = chance.normal(0, spread * np.sqrt(1 - keep * keep), len(at))
    level = np.zeros(len(at))
    for index in range(1, len(at)):
        level[index] = keep * level[index - 1] + noise[index]
    return at, level


def _stalled(begun: Floats, took: Floats, seconds: float, chance: np.random.Generator) -> Floats:
    every = 20.0
    at = np.cumsum(chance.exponential(every, int(seconds / every * 2) + 20))
    spans = chance.uniform(0.05, 0.15, len(at))
    stall = np.searchsorted(at, begun, side="right") - 1
    inside = (stall >= 0) & (begun < at[np.maximum(stall, 0)] + spans[np.maximum(stall, 0)])
    took = took.copy()
    took[inside] += (at[stall] + spans[stall] - begun)[inside]
    hit = np.searchsorted(at, begun + took, side="right") - 1  # in flight when a stall begins
    met = (hit >= 0) & (hit != stall) & (begun < at[np.maximum(hit, 0)])
    took[met] += spans[hit[met]]
    return took


def _buckets(seconds: Floats) -> Ints:
    index = np.log2(np.maximum(seconds, TINY)) * PER_OCTAVE + OFFSET
    clipped: Ints = np.clip(index.astype(np.int64), 0, BUCKETS - 1)
    return clipped


def _folds(ended: Floats, bad: Floats, begun: Floats, seconds: float) -> Floats:
    """When it is folded: ten times a second, and ahead of time where a call did not end well."""
    grid = np.arange(1, int(seconds / FOLD_SECONDS) + 1) * FOLD_SECONDS
    flying = np.searchsorted(begun, bad, side="right") - np.searchsorted(ended, bad, side="right")
    ahead: list[float] = []
    news, last, room = 0, -1, -1e9
    for at, together in zip(bad.tolist(), flying.tolist(), strict=True):
        slot = int(at / FOLD_SECONDS)
        news = news + 1 if slot == last else 1
        last = slot
        if news * TOGETHER <= together:
            continue
        next_ = max(room, at - AHEAD_SECONDS * AHEAD) + AHEAD_SECONDS
        if next_ <= at or news >= AHEAD_CALLS:
            room = next_ if next_ <= at else room
            news = 0
            ahead.append(at)
    return np.unique(np.concatenate([grid, np.array(ahead)]))


class _Grouped:
    """(tick, bucket) pairs with their counts, to be read tick by tick."""

    def __init__(self, ticks: Ints, buckets: Ints, n: int) -> None:
        keys, counts = np.unique(ticks * BUCKETS + buckets, return_counts=True)
        self.starts = np.searchsorted(keys, np.arange(n + 1) * BUCKETS).tolist()
        self.pairs = list(zip((keys % BUCKETS).tolist(), counts.tolist(), strict=True))

    def of(self, tick: int) -> list[tuple[int, int]]:
        """The pairs of one tick."""
        return self.pairs[self.starts[tick] : self.starts[tick + 1]]


def ticks(made: Calls, seconds: float) -> Iterator[Tick]:
    """The calls as an observer of them folds them."""
    begun, failed = made.begun, made.failed
    ends = begun + made.seconds
    silent = made.seconds >= TIMEOUT
    ended = np.sort(ends)
    folds = _folds(ended, np.sort(ends[failed | silent]), begun, seconds)
    n = len(folds)
    first, last = np.searchsorted(folds, begun), np.searchsorted(folds, ends)
    whole = last < n
    well = whole & ~failed & ~silent
    answered = _Grouped(last[well], _buckets(made.seconds[well]), n)
    timed_out = _Grouped(last[whole & silent], _buckets(made.seconds[whole & silent]), n)
    failures = np.bincount(last[whole & failed], minlength=n).tolist()
    started = np.bincount(first[first < n], minlength=n).tolist()
    spans = np.minimum(last, n) - first  # folds that see it in flight
    which = np.repeat(np.arange(len(begun)), spans)
    seen = np.repeat(first, spans) + _within(spans)
    ages = _Grouped(seen, _buckets(folds[seen] - begun[which]), n)
    before = 0.0
    for index, at in enumerate(folds.tolist()):
        good, out = answered.of(index), timed_out.of(index)
        classes = [0] * CLASSES
        classes[OutcomeClass.SUCCESS] = sum(count for _, count in good)
        classes[OutcomeClass.FAILURE] = failures[index]
        classes[OutcomeClass.UNKNOWN] = sum(count for _, count in out)
        waiting = [age for age, count in ages.of(index) for _ in range(count)]
        yield Tick(at, at - before, started[index], classes, good, out, waiting, 0, 0.0)
        before = at


def _within(spans: Ints) -> Ints:
    """0, 1, ... for each span, one after the other."""
    total = int(spans.sum())
    return np.arange(total) - np.repeat(np.cumsum(spans) - spans, spans)
