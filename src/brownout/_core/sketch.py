"""A latency sketch: counts in base-2 exponential buckets, answered and censored apart.

Eight buckets an octave (scale 3, each 9.05 % wide, so any value is known to 4.4 %), from 7.6 us to
128 s. Two sketches merge by adding counts: exactly, in any order. A censored sample says "at least so
long"; quantiles are Kaplan and Meier's, so that a hang can't hide: the callers who gave up at 1 s do
not make the 99th percentile 1 s, they make it unknown (infinite).

Source: OpenTelemetry's exponential histogram; E. L. Kaplan and P. Meier, "Nonparametric Estimation
from Incomplete Observations", JASA 53 (1958).
"""

from __future__ import annotations

from array import array
from math import exp2, inf, log2

PER_OCTAVE = 8
LOWEST_OCTAVE = -17
BUCKETS = 192  # 24 octaves
OFFSET = -LOWEST_OCTAVE * PER_OCTAVE
_LAST = BUCKETS - 1
TINY = exp2(LOWEST_OCTAVE)


def bucket(seconds: float) -> int:
    """The bucket of a latency: bucket i holds (2^(-17 + i/8), 2^(-17 + (i+1)/8)] seconds, ends clamped."""
    if seconds <= TINY:
        return 0
    index = int(log2(seconds) * PER_OCTAVE + OFFSET)
    return min(_LAST, index)


def middle(index: int) -> float:
    """The geometric middle of a bucket, in seconds."""
    return exp2(LOWEST_OCTAVE + (index + 0.5) / PER_OCTAVE)


class Sketch:
    """Counts of latencies; `answered[i]` and `censored[i]` are the counts of bucket i."""

    __slots__ = ("answered", "censored")

    def __init__(self) -> None:
        self.answered = array("Q", bytes(8 * BUCKETS))
        self.censored = array("Q", bytes(8 * BUCKETS))

    def add(self, seconds: float, *, censored: bool = False) -> None:
        """Count one latency."""
        (self.censored if censored else self.answered)[bucket(seconds)] += 1

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch."""
        for mine, theirs in ((self.answered, other.answered), (self.censored, other.censored)):
            for index, count in enumerate(theirs):
                if count:
                    mine[index] += count

    def halve(self) -> None:
        """Forget half: what is old weighs less."""
        for counts in (self.answered, self.censored):
            for index, count in enumerate(counts):
                if count:
                    counts[index] = count >> 1

    @property
    def count(self) -> int:
        """How many samples, answered and censored."""
        return sum(self.answered) + sum(self.censored)

    def survival(self) -> list[float]:
        """The share of calls that take longer than the upper end of each bucket (Kaplan and Meier)."""
        at_risk = self.count
        alive = 1.0
        curve: list[float] = []
        for answered, censored in zip(self.answered, self.censored, strict=True):
            if answered:
                alive *= 1.0 - answered / at_risk
            at_risk -= answered + censored
            curve.append(alive)
        return curve

    def quantile(self, share: float) -> float:
        """The latency in seconds that `share` of the calls stay below; infinite if they never answered.

        NaN-free: an empty sketch gives 0.0.
        """
        if not self.count:
            return 0.0
        left = 1.0 - share
        for index, alive in enumerate(self.survival()):
            if self.answered[index] and alive <= left + 1e-12:
                return middle(index)
        return inf

    def pairs(self) -> list[list[int]]:
        """The counts that are not zero, as [bucket, answered, censored]: small, and plain JSON."""
        rows = zip(self.answered, self.censored, strict=True)
        return [[index, a, c] for index, (a, c) in enumerate(rows) if a or c]
