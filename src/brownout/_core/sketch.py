"""A latency sketch: counts in base-2 exponential buckets, answered and censored apart.

Eight buckets an octave (scale 3, each 9.05 % wide, so any value is known to 4.4 %), from 61 us to
256 s; what is shorter or longer stands in the first or the last. Two sketches merge by adding counts:
exactly, in any order. One that is given a longer value down-scales: neighbours become one bucket, twice
as wide; a finer sketch does so before it is merged with a coarser one. A censored sample says "at least
so long"; quantiles are Kaplan and Meier's, so that a hang can't hide: the callers who gave up at 1 s do
not make the 99th percentile 1 s, they make it unknown (infinite).

Source: OpenTelemetry's exponential histogram; E. L. Kaplan and P. Meier, "Nonparametric Estimation
from Incomplete Observations", JASA 53 (1958).
"""

from __future__ import annotations

from array import array
from itertools import chain, compress
from math import exp2, floor, inf, log2
from sys import byteorder
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

SCALE = 3  # of what is counted here; 2**SCALE buckets an octave
PER_OCTAVE = 2**SCALE
LOWEST_OCTAVE = -14
BUCKETS = 176  # 22 octaves: a shard has 2 KiB with all that belongs to it
OFFSET = -LOWEST_OCTAVE * PER_OCTAVE
_LAST = BUCKETS - 1
TINY = exp2(LOWEST_OCTAVE)
MOST = 2**32 - 1  # of one count
FINEST = 20  # OpenTelemetry's; the coarsest that is needed is 0,
LONGEST = exp2(BUCKETS + LOWEST_OCTAVE - 1)  # which goes as far as this: every latency is shorter
_ZERO = array("I", [0])
_EMPTY = _ZERO * BUCKETS  # of every sketch in which nothing is censored
_NARROW = array("H", [0]) * BUCKETS
_WIDER = {"H": "I", "I": "Q"}
_INDICES = range(BUCKETS)
NOTHING = bytes(4 * BUCKETS)  # counts of 32 bits, all zero
_LOW = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * (BUCKETS // 2), "little")
HALF = int.from_bytes(b"\0\0\0\x80\0\0\0\0" * BUCKETS, "little")  # 2**31 in each lane
HALF_FULL = int.from_bytes(b"\0\0\0\x80" * BUCKETS, "little")  # and in counts of 32 bits


_LEAST = [exp2(LOWEST_OCTAVE + index / PER_OCTAVE) if index else 0.0 for index in range(BUCKETS)]


def zeros() -> array[int]:
    """Counts of 32 bits, one a bucket."""
    return _ZERO * BUCKETS


def bucket(seconds: float) -> int:
    """The bucket of a latency: bucket i holds [2^(-14 + i/8), 2^(-14 + (i+1)/8)) seconds, ends clamped."""
    if seconds <= TINY:
        return 0
    index = int(log2(seconds) * PER_OCTAVE + OFFSET)
    return min(_LAST, index)


def middle(index: int, scale: int = SCALE) -> float:
    """The geometric middle of a bucket, in seconds."""
    return exp2(LOWEST_OCTAVE + (index + 0.5) / 2**scale)


def least(index: int) -> float:
    """The least that a bucket holds, in seconds."""
    return _LEAST[index]


def together(raw: bytes) -> int:
    """The bytes of all counts as one number, 32 bits for each.

    No count ever falls, so one subtraction tells for all of them what was counted since.
    """
    return int.from_bytes(raw, byteorder)


def widen(narrow: int) -> int:
    """Counts of 32 bits each as 64 bits each: so they add up without a loop, or an overflow."""
    return (narrow & _LOW) | (narrow >> 32 & _LOW) << 32 * BUCKETS


def lanes(counts: array[int]) -> int:
    """All counts as one number, each in 64 bits of it."""
    return widen(int.from_bytes(counts.tobytes(), byteorder))


def unpack(wide: int) -> list[tuple[int, int]]:
    """The (bucket, count) pairs of a sum of `lanes`, without those that are zero."""
    if not wide:
        return []
    counts = array("Q", wide.to_bytes(8 * BUCKETS, byteorder))
    half = BUCKETS // 2  # first the even buckets, then the odd ones
    return _pairs(chain.from_iterable(zip(counts[:half], counts[half:], strict=True)))


def pairs_of(narrow: int) -> list[tuple[int, int]]:
    """The (bucket, count) pairs of counts of 32 bits each, without those that are zero."""
    counts = array("I", narrow.to_bytes(4 * BUCKETS, byteorder))
    return list(zip(compress(_INDICES, counts), filter(None, counts), strict=True))


def shut(numbers: Iterable[int]) -> bytes:
    """Whole numbers, none negative, in as few bytes as they need: seven bits in each (LEB128)."""
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7  # noqa: PLW2901 - the rest of it
        out.append(number)
    return bytes(out)


def opened(raw: bytes) -> list[int]:
    """The numbers of `shut`."""
    numbers: list[int] = []
    number = shift = 0
    for byte in raw:
        number |= (byte & 127) << shift
        if byte > 127:
            shift += 7
        else:
            numbers.append(number)
            number = shift = 0
    return numbers


def _pairs(counts: Iterable[int]) -> list[tuple[int, int]]:
    return [(index, count) for index, count in enumerate(counts) if count]


def _added(mine: array[int], theirs: list[tuple[int, int]], shift: int = 0) -> array[int]:
    """`mine` with `theirs` on top, `2**shift` of their buckets in one; wider where it is too narrow."""
    if not theirs:
        return mine
    if mine is _EMPTY:
        mine = zeros()
    for index, count in theirs:
        try:
            mine[index >> shift] += count
        except OverflowError:
            mine = _added(array(_WIDER[mine.typecode], mine), [(index, count)], shift)
    return mine


class Latencies(NamedTuple):
    """A sketch as it is told to others: (index, answered, censored) of each bucket that is not empty.

    Indices and scale are those of OpenTelemetry's exponential histogram: a bucket begins at
    2^(index/2^scale) seconds. What is censored took at least so long.
    """

    scale: int
    rows: tuple[tuple[int, int, int], ...]


UNTOLD = Latencies(SCALE, ())


class Sketch:
    """Counts of latencies; `answered[i]` and `censored[i]` are the counts of bucket i.

    At scale s bucket i holds [2^(-14 + i/2^s), 2^(-14 + (i+1)/2^s)) seconds.
    """

    __slots__ = ("answered", "censored", "scale")

    def __init__(self) -> None:
        self.scale = SCALE
        self.answered = zeros()
        self.censored = _EMPTY

    @classmethod
    def narrow(cls) -> Sketch:
        """One for few counts, of 16 bits each; it grows wider when that is too little."""
        sketch = cls()
        sketch.answered = _NARROW[:]
        return sketch

    def add(self, seconds: float, *, censored: bool = False) -> None:
        """Count one latency."""
        octaves = log2(min(max(seconds, TINY), LONGEST))
        counts = (0, 1) if censored else (1, 0)
        self.put(floor(octaves * 2**self.scale), self.scale, *counts)

    def put(self, index: int, scale: int, answered: int, censored: int) -> None:
        """Add to a bucket of another scale, as OpenTelemetry numbers it: it begins at 2^(index/2^scale) s.

        Raises ValueError for a scale or an index that no latency has.
        """
        if not 0 <= scale <= FINEST or index > log2(LONGEST) * 2**scale:
            raise ValueError("no bucket of a latency")
        index = max(0, index - LOWEST_OCTAVE * 2**scale)
        coarse = min(scale, self.scale)
        while index >> (scale - coarse) >= BUCKETS:
            coarse -= 1
        self._coarsen(coarse)
        self.take([(index, answered)], [(index, censored)], scale)

    def take(
        self, answered: list[tuple[int, int]], censored: list[tuple[int, int]], scale: int = SCALE
    ) -> None:
        """Add (bucket, count) pairs of the same or a finer scale."""
        self.answered = _added(self.answered, answered, scale - self.scale)
        self.censored = _added(self.censored, censored, scale - self.scale)

    def _coarsen(self, scale: int) -> None:
        """Down to a coarser scale; nothing if it is coarser already."""
        shift = self.scale - scale
        if shift > 0:
            self.answered = _added(zeros(), _pairs(self.answered), shift)
            self.censored = _added(zeros(), _pairs(self.censored), shift)
            self.scale = scale

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch, at the coarser scale of the two."""
        self._coarsen(other.scale)
        self.take(_pairs(other.answered), _pairs(other.censored), other.scale)

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
                return middle(index, self.scale)
        return inf

    def told(self) -> Latencies:
        """What it holds, as it is told to others."""
        first = LOWEST_OCTAVE * 2**self.scale
        pairs = enumerate(zip(self.answered, self.censored, strict=True))
        return Latencies(
            self.scale, tuple((first + index, a, c) for index, (a, c) in pairs if a or c)
        )

    def hear(self, told: Latencies) -> None:
        """Add what another one told. Raises ValueError for a bucket that no latency has."""
        for index, answered, censored in told.rows:
            self.put(index, told.scale, answered, censored)
