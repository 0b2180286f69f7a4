"""The baseline: what is usual as numbers that the judge counts by, made from what was learned.

Its shares and tails are rounded to steps, so that operations that are much alike share a table of modes.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, exp2, inf, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, LOWEST_OCTAVE, PER_OCTAVE, bucket, middle
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEAD_BAND = (0.25, 0.007)  # the larger of this share and these seconds is not material
LEFT_BAND_SHARE = 0.2  # for callers who left: to get no answer is material at any speed
LEFT_BAND_SECONDS = 0.0002
SILENT_COLD_SECONDS = 1.0  # without a baseline and without a time-out, silence is a second
FASTEST = 0.01  # and twice as fast as these: a target that became somewhat better is not ill
FAST_SHARE = 0.05  # of the calls are faster than this; beyond the dead band that is too fast,
FAST_CALLS = 60  # once so many are known
EARLY_RESTLESS = 0.5  # a few moments say little of others: so much wider is what they call usual
RATE_SECONDS = 1.0
TAILS = (0.5, 0.1, 0.01, 0.001)
_RESTLESS_STEP = 0.02  # finer differences make no other table of modes
_BAD = (OutcomeClass.FAILURE, OutcomeClass.OVERLOAD, OutcomeClass.CONNECT, OutcomeClass.UNKNOWN)
_PRIORS = (0.04, 0.01, 0.005, 0.02)  # of these, before any is learned
_LEAST = (2e-3, 1e-3, 5e-4, 1e-3)  # and what is never called unusual
_SHARE_STEP = 1.1
_N_STEP = 1.15
MOST_ERRORS = 0.8  # a share that is pinned, or learned, is no greater
LATE = 5  # the level of an answer, or a wait, beyond `silent_after`


class Baseline(NamedTuple):
    """What is usual, fixed until the next refit.

    `rate` is 0 until it has been seen for a second: a burst is no rate. `tails` are the shares of calls
    expected beyond the four thresholds, `rough` the same in a rough but ordinary stretch; `level` gives the
    level (0 to 5) of a latency's bucket, and `left` that of the wait of a caller who left; shares are of
    all calls. `kept_at` is the instant at which a predecessor had learned it (infinite: it is our own);
    `chronic` the share of calls that have failed ever since the start (0: it was healthy once). An answer in
    a bucket below `fast` is too fast.
    """

    n: int
    rate: float
    p50: float
    p99: float
    thresholds: tuple[float, ...]
    silent_after: float
    tails: tuple[float, ...]
    rough: tuple[float, ...]
    level: bytes
    left: bytes
    errors: float
    overload: float
    refused: float
    silent: float
    kept_at: float = inf
    chronic: float = 0.0
    fast: int = 0

    @property
    def cold(self) -> bool:
        """Whether nothing has been learned yet: only definite outcomes and deadlines can be judged."""
        return self.n == 0


_MIDDLES = [middle(index) for index in range(BUCKETS)]


def _levels(thresholds: tuple[float, ...], silent_after: float) -> bytes:
    late = bucket(silent_after)
    levels = bytearray(BUCKETS)
    for edge in thresholds:
        for index in range(bucket(edge) if edge < inf else BUCKETS, BUCKETS):
            levels[index] += _MIDDLES[index] > edge
    levels[late:] = bytes([LATE]) * (BUCKETS - late)
    return bytes(levels)


def cold(timeout: float, errors: float | None = None) -> Baseline:
    """The baseline before any is learned: priors, and the time-out in place of a usual latency.

    `errors` is the share of calls that is said to fail ordinarily.
    """
    silent_after = min(timeout * 0.999, SILENT_COLD_SECONDS)
    thresholds = (inf, inf, inf, inf)
    level = _levels(thresholds, silent_after)
    failing, overload, refused, silent = _PRIORS
    failing = max(failing, errors or 0.0)
    return Baseline(
        0, 0.0, 0.0, 0.0, thresholds, silent_after, TAILS, TAILS, level, level,
        failing, overload, refused, silent,
    )  # fmt: skip


def check_share(target: str, errors: float | None) -> None:
    """Raise ConfigurationError if that is no share of calls that may be pinned."""
    if errors is not None and not 0 <= errors <= MOST_ERRORS:
        raise ConfigurationError(
            f"{target}: relearn(errors={errors!r}): give a share of calls from 0 to {MOST_ERRORS}"
        )


class Seen(NamedTuple):
    """What a baseline is made from."""

    counts: list[int]
    classes: Sequence[int]
    started: int
    seconds: float


def quantiles_of(counts: list[int]) -> list[float]:
    """The latencies that the shares of `TAILS` exceed."""
    return [_quantile(counts, 1.0 - tail) for tail in TAILS]


def _quantile(counts: list[int], share: float) -> float:
    """The latency that `share` of the calls stay below, within a bucket as if it were evenly full."""
    left = share * sum(counts)
    for index, count in enumerate(counts):
        if count and left <= count:
            return exp2(LOWEST_OCTAVE + (index + max(0.0, left) / count) / PER_OCTAVE)
        left -= count
    return exp2(LOWEST_OCTAVE + BUCKETS / PER_OCTAVE)


def _fast(counts: list[int], dead_band: tuple[float, float]) -> int:
    if sum(counts) < FAST_CALLS:
        return 0
    share, seconds = dead_band
    fifth = _quantile(counts, FAST_SHARE)
    edge = min(fifth - max(share * fifth, seconds), _quantile(counts, FASTEST) / 2)
    return bucket(edge) if edge > 0 else 0


def fit(
    seen: Seen,
    timeout: float,
    dead_band: tuple[float, float],
    pinned: float | None,
    *,
    restless: float = EARLY_RESTLESS,
    quantiles: list[float] | None = None,
    errors: float | None = None,
    early: bool = False,
) -> Baseline:
    quantiles = quantiles or quantiles_of(seen.counts)
    n = sum(seen.counts)
    known = int(_N_STEP ** int(log(max(n, 1)) / log(_N_STEP) + 1e-9))
    edges = _edges(quantiles, *dead_band)
    silent_after = max(3 * edges[3], min(timeout / 2, SILENT_COLD_SECONDS))
    silent_after = min(silent_after, timeout * 0.999)
    shares = [share_of(seen, which) for which in range(len(_BAD))]
    if errors is not None:
        shares[0] = errors
    if early:
        shares = [min(share, prior) for share, prior in zip(shares, _PRIORS, strict=True)]
    shares[0] = max(shares[0], pinned or 0.0)
    failing, overload, refused, silent = (
        _rounded(share, least) for share, least in zip(shares, _LEAST, strict=True)
    )
    restless = ceil(restless / _RESTLESS_STEP) * _RESTLESS_STEP
    return Baseline(
        n,
        seen.started / seen.seconds if seen.seconds >= RATE_SECONDS else 0.0,
        quantiles[0],
        quantiles[2],
        edges,
        silent_after,
        _tails(known, 1.0),
        _tails(known, exp(-2.0 * restless)),
        _levels(edges, silent_after),
        _levels(_edges(quantiles, LEFT_BAND_SHARE, LEFT_BAND_SECONDS), silent_after),
        failing,
        overload,
        refused,
        silent,
        fast=_fast(seen.counts, dead_band),
    )


def _edges(quantiles: list[float], share: float, band: float) -> tuple[float, ...]:
    edges = [seconds + max(share * seconds, band) for seconds in quantiles]
    for index in (1, 2, 3):
        edges[index] = max(edges[index], edges[index - 1] * 1.05)
    return tuple(edges)


@lru_cache(maxsize=256)
def _tails(n: int, theta: float) -> tuple[float, ...]:
    """The shares beyond the thresholds; none is known to be smaller than 1 in n + 1."""
    tails = [max(tail, 1.0 / (n + 1)) ** theta for tail in TAILS]
    for index in (1, 2, 3):
        tails[index] = min(tails[index], tails[index - 1] * 0.8)
    return tuple(tails)


def share_of(seen: Seen, which: int) -> float:
    """A share with two standard deviations on top, from the least to 80 %."""
    n = max(1, sum(seen.classes) - seen.classes[OutcomeClass.LOCAL])
    share = (seen.classes[_BAD[which]] + 0.5) / (n + 1)
    return min(max(share + 2 * sqrt(share * (1 - share) / (n + 1)), _LEAST[which]), MOST_ERRORS)


def _rounded(share: float, least: float) -> float:
    """Up to the next step, so that operations that are much alike share a table of modes."""
    if share <= least:
        return least
    return min(least * _SHARE_STEP ** ceil(log(share / least) / log(_SHARE_STEP) - 1e-9), 0.9)
