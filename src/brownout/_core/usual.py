"""The usual: what an operation shows while nothing is wrong, learned from its own healthy time.

Ticks wait in quarantine for five seconds and enter only if nothing became suspicious meanwhile; an
alarm empties the quarantine. So a target does not learn its own failure. From the learned latencies
come four thresholds (the slowest 50, 10, 1 and 0.1 %, widened by the dead band: what is material, not
what is measurable), and from their spread over blocks of five seconds a measure of how restless healthy
traffic is, so that an ordinary rough stretch is no alarm.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, log, sqrt
from typing import NamedTuple

from brownout._core.evidence import CLASSES, Cell, Tick
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, TINY, Sketch, bucket, middle

QUARANTINE_SECONDS = 5.0
ENOUGH = 80  # answered calls before a baseline is believed
REMEMBERED = 20_000  # then old counts are halved
DEAD_BAND = (0.25, 0.001)  # as much more, and seconds on top, are not material
LEFT_BAND_SHARE = 0.2  # for callers who left: to get no answer is material at any speed
LEFT_BAND_SECONDS = 0.0002
SILENT_COLD_SECONDS = 1.0  # without a baseline and without a time-out, silence is a second
EARLY = 20  # answered calls after which a first baseline is made, from all that was seen so far
EARLY_RESTLESS = 0.5  # a few moments say little of others: so much wider is what they call usual
FAST_CALLS = 60  # of fewer the fastest 5 % are not known
BLOCK_SECONDS = 5.0
RATE_SECONDS = 1.0
_RESTLESS_PRIOR = 0.25  # worth four blocks
_RESTLESS_WEIGHT = 4.0
_TAILS = (0.5, 0.1, 0.01, 0.001)
_BAD = (OutcomeClass.FAILURE, OutcomeClass.OVERLOAD, OutcomeClass.CONNECT, OutcomeClass.UNKNOWN)
_PRIORS = (0.04, 0.01, 0.005, 0.02)  # of these, before any is learned
_LEAST = (2e-3, 1e-3, 5e-4, 1e-3)  # and what is never called unusual
LATE = 5  # the level of an answer, or a wait, beyond `silent_after`


class Baseline(NamedTuple):
    """What is usual, fixed until the next refit.

    `rate` is 0 until it has been seen for a second: a burst is no rate. `tails` are the shares of calls
    expected beyond the four thresholds, `rough` the same in a rough but ordinary stretch; `level` gives the
    level (0 to 5) of a latency's bucket, and `left` that of the wait of a caller who left; shares are of
    all calls; an answer below the bucket `fast` is too fast (0: none is).
    """

    n: int
    rate: float
    p50: float
    p99: float
    thresholds: tuple[float, ...]
    silent_after: float
    tails: tuple[float, ...]
    rough: tuple[float, ...]
    level: tuple[int, ...]
    left: tuple[int, ...]
    errors: float
    overload: float
    refused: float
    silent: float
    fast: int = 0

    @property
    def cold(self) -> bool:
        """Whether nothing has been learned yet: only definite outcomes and deadlines can be judged."""
        return self.n == 0


def _levels(thresholds: tuple[float, ...], silent_after: float) -> tuple[int, ...]:
    late = bucket(silent_after)
    return tuple(
        LATE if i >= late else sum(middle(i) > edge for edge in thresholds) for i in range(BUCKETS)
    )


def cold(timeout: float) -> Baseline:
    """The baseline before any is learned: priors, and the time-out in place of a usual latency."""
    silent_after = min(timeout * 0.999, SILENT_COLD_SECONDS)
    thresholds = (inf, inf, inf, inf)
    tails = (0.5, 0.1, 0.01, 0.001)
    level = _levels(thresholds, silent_after)
    return Baseline(
        0, 0.0, 0.0, 0.0, thresholds, silent_after, tails, tails, level, level, *_PRIORS
    )


class Usual:
    """Learns the baseline of one operation from its healthy ticks."""

    __slots__ = (
        "_block_began", "_block_calls", "_block_hazard", "_blocks", "_classes", "_doubted", "_early",
        "_early_next", "_early_seconds", "_hazard", "_next", "_quarantine", "_seconds", "_sketch", "_started",
        "baseline", "dead_band", "timeout",
    )  # fmt: skip

    def __init__(self, timeout: float, dead_band: tuple[float, float] = DEAD_BAND) -> None:
        self.timeout = timeout
        self.dead_band = dead_band
        self.baseline = cold(timeout)
        self._early = Cell(0.0)  # all that was seen before enough was learned, not only what is old
        self._early_seconds = 0.0
        self._doubted: deque[Tick] = deque(maxlen=1024)
        self._early_next = EARLY
        self._quarantine: deque[Tick] = deque(maxlen=1024)
        self._sketch = Sketch()
        self._classes = [0] * CLASSES
        self._started = 0
        self._seconds = 0.0
        self._next = ENOUGH
        self._blocks: deque[tuple[float, int]] = deque(maxlen=60)
        self._block_began = 0.0
        self._block_calls = 0
        self._block_hazard = 0.0
        self._hazard: list[float] = []

    def learn(self, tick: Tick, *, suspicious: bool, ill: bool) -> None:
        """Put a tick in quarantine, and take in those that have been there long enough.

        While `suspicious` nothing is learned; unless it turns out to be `ill`, that was part of the usual.
        """
        if ill:
            self._doubted.clear()
            self._quarantine.clear()
            return
        if self._next == ENOUGH:
            self._doubted.append(tick)
        self._quarantine.append(tick)
        if suspicious:
            return
        while self._quarantine and self._quarantine[0].at <= tick.at - QUARANTINE_SECONDS:
            self._take(self._quarantine.popleft())
        if self._sketch.count >= self._next:
            self._refit()
        elif self._next == ENOUGH:
            self._first()

    def interrupt(self) -> None:
        """Nobody has looked for a while: what is in quarantine has not stood it."""
        self._doubted.clear()
        self._quarantine.clear()

    def _first(self) -> None:
        """A baseline before there is one that has stood the quarantine: wider, and never laxer than cold."""
        early = self._early
        for tick in self._doubted:
            early.add(tick)
            self._early_seconds += min(tick.seconds, BLOCK_SECONDS)
        self._doubted.clear()
        answered = sum(early.sketch.answered)
        if answered >= self._early_next:
            self._early_next = int(answered * 1.4)
            sketch = (
                Sketch()
            )  # of what was answered: one long wait would leave nothing known of the rest
            sketch.answered[:] = early.sketch.answered
            seen = _Seen(sketch, early.classes, early.started, self._early_seconds)
            self.baseline = _fit(seen, self.timeout, self.dead_band, EARLY_RESTLESS, early=True)

    def _take(self, tick: Tick) -> None:
        for index, count in tick.answered:
            self._sketch.answered[index] += count
        for index, count in enumerate(tick.classes):
            self._classes[index] += count
        self._started += tick.started
        self._seconds += min(tick.seconds, BLOCK_SECONDS)
        self._rest(tick)
        if sum(self._classes) > REMEMBERED:
            self._sketch.halve()
            self._classes = [count >> 1 for count in self._classes]
            self._started >>= 1
            self._seconds /= 2
            self._next = 0

    def _rest(self, tick: Tick) -> None:
        # One block's completion hazard against the whole: calls / sum of -ln S(latency). Exactly 1 on
        # average if every block is like the whole; its spread beyond chance is restlessness.
        if self._block_calls >= 8 and tick.at - self._block_began >= BLOCK_SECONDS:
            self._blocks.append((log(self._block_hazard / self._block_calls), self._block_calls))
            self._block_calls, self._block_hazard = 0, 0.0
        if not self._block_calls:
            self._block_began = tick.at
        if not tick.answered or not self._hazard:
            return
        hazard = self._hazard
        for index, count in tick.answered:
            before = hazard[index - 1] if index else 0.0
            self._block_hazard += count * max((before + hazard[index]) / 2, 1e-3)
            self._block_calls += count

    def hazard(self) -> list[float]:
        """-ln of the share of calls that take longer than each bucket; empty before any is learned."""
        if self.baseline.cold:
            return []
        return [-log(max(alive, 1e-4)) for alive in self._sketch.survival()]

    def _restless(self) -> float:
        prior = _RESTLESS_WEIGHT * _RESTLESS_PRIOR**2
        n = len(self._blocks)
        if n < 2:
            return sqrt(prior / _RESTLESS_WEIGHT)
        mean = sum(value for value, _ in self._blocks) / n
        spread = sum((value - mean) ** 2 for value, _ in self._blocks) / (n - 1)
        chance = sum(1.0 / calls for _, calls in self._blocks) / n
        return sqrt((prior + n * max(0.0, spread - chance)) / (_RESTLESS_WEIGHT + n))

    def _refit(self) -> None:
        self._next = int(self._sketch.count * 1.15) + 3
        self._hazard = [-log(max(alive, 1e-4)) for alive in self._sketch.survival()]
        seen = _Seen(self._sketch, self._classes, self._started, self._seconds)
        self.baseline = _fit(seen, self.timeout, self.dead_band, self._restless())


class _Seen(NamedTuple):
    """What a baseline is made from."""

    sketch: Sketch
    classes: list[int]
    started: int
    seconds: float


def _fit(
    seen: _Seen,
    timeout: float,
    dead_band: tuple[float, float],
    restless: float,
    *,
    early: bool = False,
) -> Baseline:
    sketch, classes = seen.sketch, seen.classes
    n = sketch.count
    all_calls = max(1, sum(classes) - classes[OutcomeClass.LOCAL])
    quantiles = [sketch.quantile(1.0 - tail) for tail in _TAILS]
    edges = _edges(quantiles, *dead_band)
    silent_after = max(3 * edges[3], min(timeout / 2, SILENT_COLD_SECONDS))
    silent_after = min(silent_after, timeout * 0.999)
    shares = [
        _share(classes[class_], all_calls, least)
        for class_, least in zip(_BAD, _LEAST, strict=True)
    ]
    if early:
        shares = [min(share, prior) for share, prior in zip(shares, _PRIORS, strict=True)]
    return Baseline(
        n,
        seen.started / seen.seconds if seen.seconds >= RATE_SECONDS else 0.0,
        quantiles[0],
        sketch.quantile(0.99),
        edges,
        silent_after,
        _tails(n, 1.0),
        _tails(n, exp(-2.0 * restless)),
        _levels(edges, silent_after),
        _levels(_edges(quantiles, LEFT_BAND_SHARE, LEFT_BAND_SECONDS), silent_after),
        shares[0],
        shares[1],
        shares[2],
        shares[3],
        _fast(sketch, n, dead_band),
    )


def _fast(sketch: Sketch, n: int, dead_band: tuple[float, float]) -> int:
    """Below the fastest 5 %, by the dead band: the bucket where answers are not too fast any more."""
    share, seconds = dead_band
    edge = (sketch.quantile(0.05) - seconds) / (1 + share)
    return bucket(edge) if n >= FAST_CALLS and edge > TINY else 0


def _edges(quantiles: list[float], share: float, band: float) -> tuple[float, ...]:
    edges = [seconds * (1 + share) + band for seconds in quantiles]
    for index in (1, 2, 3):
        edges[index] = max(edges[index], edges[index - 1] * 1.05)
    return tuple(edges)


def _tails(n: int, theta: float) -> tuple[float, ...]:
    """The shares beyond the thresholds; none is known to be smaller than 1 in n + 1."""
    tails = [max(tail, 1.0 / (n + 1)) ** theta for tail in _TAILS]
    for index in (1, 2, 3):
        tails[index] = min(tails[index], tails[index - 1] * 0.8)
    return tuple(tails)


def _share(count: int, n: int, least: float) -> float:
    """A share with two standard deviations on top, from `least` to 80 %."""
    share = (count + 0.5) / (n + 1)
    return min(max(share + 2 * sqrt(share * (1 - share) / (n + 1)), least), 0.8)
