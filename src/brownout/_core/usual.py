"""The usual: what an operation shows while nothing is wrong, learned from its own healthy time.

A few seconds' calls (a cell) wait in quarantine for ten seconds and 25 calls, and enter only if nothing is
suspicious then; an alarm empties the quarantine. So a target does not learn its own failure. From the
learned latencies come four thresholds (the slowest 50, 10, 1 and 0.1 %, widened by the dead band: what is
material, not what is measurable), and from their spread over cells a measure of how restless healthy
traffic is, so that an ordinary rough stretch is no alarm. What is usual may become better at once, and worse
by 1 % an hour at most (the ratchet), so that a slow drift is not learned on its way. It is kept through
restarts, with its age.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout._core.baseline import (
    DEAD_BAND,
    TAILS,
    Seen,
    cold,
    fit,
    quantiles_of,
    share_of,
)
from brownout._core.cell import CELL_SECONDS, CLASSES, Cell, Closed
from brownout._core.kept import LEAST_CALLS, VERSION, checked
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, SCALE, opened, shut

if TYPE_CHECKING:
    from brownout._core.cell import Tick

QUARANTINE_SECONDS = 10.0
QUARANTINE_CALLS = 25  # and so many must have ended since,
QUARANTINE_MOST_SECONDS = 120.0  # though nobody waits longer for them
CELL_CALLS = (
    8  # cells of fewer are put together: a slow target's quarantine is no longer than another's
)
ENOUGH = LEAST_CALLS  # answered calls before a baseline is believed
REMEMBERED = 20_000  # calls, and
REMEMBERED_SECONDS = (
    900.0  # so long: then old counts are halved. An hour's wave is not learned as two usuals
)
EARLY = 20  # answered calls after which a first baseline is made, from all that was seen so far
RISE_PER_HOUR = 1.01  # the ratchet: of a latency,
RISE_SHARE_PER_HOUR = 0.005  # and of the share of calls that fail
RATCHET_CALLS = (
    1000,
    3000,
    20_000,
    200_000,
)  # when each threshold is known too well to rise by chance
RATCHET_SHARE_CALLS = 2000
OLDEST_SECONDS = 86_400.0  # what a predecessor learned longer ago is not believed
BLOCKS = 240  # that restlessness is measured over: twenty minutes, against
NEAR_BLOCKS = (
    24  # the mean of so many: a drift is not restlessness, and may not widen what is usual
)
_RESTLESS_PRIOR = 0.25  # worth four blocks
_RESTLESS_WEIGHT = 4.0


class Usual:
    """Learns the baseline of one operation from its healthy cells."""

    __slots__ = (
        "_anchors", "_anchors_at", "_blocks", "_classes", "_counts", "_early", "_failing",
        "_heard_until", "_next", "_quarantine", "_seconds", "_started", "_tainted", "anew", "baseline",
        "dead_band", "kept_at", "pinned", "timeout",
    )  # fmt: skip

    def __init__(self, timeout: float, dead_band: tuple[float, float] = DEAD_BAND) -> None:
        self.timeout = timeout
        self.dead_band = dead_band
        self.pinned: float | None = None  # the share of failures that somebody said is usual
        self.anew = False  # it was said to be another target now: what a predecessor knew is void
        self._quarantine: list[Closed] = []
        self._forget()

    def _forget(self) -> None:
        self.baseline = cold(self.timeout, self.pinned)
        self._early: _Early | None = _Early()
        self._failing = (0, 0)  # calls, and failures, since the start, until enough is learned
        self._quarantine.clear()
        self._tainted = True  # the cell that is open has begun before
        self._counts = b""  # answered calls by bucket, packed
        self._classes = (0,) * CLASSES
        self._started = 0
        self._seconds = 0.0
        self._next = ENOUGH
        self._blocks = _Blocks(0, 0.0, 0.0, 0.0)
        self._anchors: tuple[float, ...] = (0.0,) * (len(TAILS) + 1)
        self._anchors_at = 0.0
        self.kept_at, self._heard_until = inf, -inf

    def relearn(self, errors: float | None = None) -> None:
        """Forget what is usual: the target is another one now, after a deploy or a restart.

        `errors` pins the share of calls (0 to 0.8) that fails ordinarily: up to so many are no news.
        """
        self.pinned = errors
        self.anew = True
        self._forget()

    @property
    def learned(self) -> bool:
        """Whether the baseline has stood the quarantine, here or in a predecessor."""
        return self._early is None

    @property
    def chronic(self) -> float:
        """The share of calls that have failed since the start, if it was never well; else 0."""
        calls, failed = self._failing
        return failed / calls if calls >= ENOUGH and self._early is not None else 0.0

    def interrupt(self) -> None:
        """Nobody has looked for a while: what is in quarantine has not stood it."""
        self._quarantine.clear()
        self._tainted = True
        if self._early is not None:
            self._early.doubted.clear()

    def hazard(self) -> list[float]:
        """-ln of the share of calls that take longer than each bucket; empty before anything is known."""
        if self.baseline.cold:
            return []
        return _hazard(
            _unpacked(self._counts) if self._early is None else self._early.seen().counts
        )

    def learn(self, tick: Tick, closed: Closed | None, *, suspicious: bool, ill: bool) -> None:
        """Put the cell that was closed in quarantine, and take in those that have been there long enough.

        While `suspicious` nothing is learned; unless it turns out to be `ill`, that was part of the usual.
        """
        if closed is not None:
            if self._tainted:
                self._tainted = False
            else:
                self._hold(closed)
        early = self._early
        if early is not None and any(tick.classes):
            calls, failed = self._failing
            calls += sum(tick.classes) - tick.classes[OutcomeClass.LOCAL]
            self._failing = calls, failed + tick.classes[OutcomeClass.FAILURE]
        if ill:
            self._tainted = True
            self._quarantine.clear()
            if early is not None:
                early.doubted.clear()
            return
        if early is not None:
            early.take(tick)
        if suspicious:
            return
        if self._quarantine:
            self._release(tick.at)
        if early is not None and self._early is early and early.ready():
            self.baseline = fit(early.seen(), self.timeout, self.dead_band, self.pinned, early=True)

    def skip(self, closed: Closed | None) -> None:
        """A tick says more of ourselves than of the target: the cell that is open will not be learned."""
        if closed is not None and not self._tainted:
            self._hold(closed)
        self._tainted = True

    def _hold(self, closed: Closed) -> None:
        if self._quarantine and self._quarantine[-1].calls < CELL_CALLS:
            cell = self._quarantine.pop().open()
            cell.merge(closed.open())
            closed = Closed.of(cell, closed.until)
        self._quarantine.append(closed)

    def _release(self, now: float) -> None:
        waiting = self._quarantine
        while waiting and now - waiting[0].until >= QUARANTINE_SECONDS:
            since = sum(cell.calls for cell in waiting[1:])
            if since < QUARANTINE_CALLS and now - waiting[0].until < QUARANTINE_MOST_SECONDS:
                return
            self._take(waiting.pop(0).open(), now)

    def _take(self, cell: Cell, now: float) -> None:
        if now > self._heard_until:
            self.kept_at = inf  # by now it is our own
        counts = _unpacked(self._counts)
        for index, count in enumerate(cell.sketch.answered):
            if count:
                counts[index] += count
        classes = [a + b for a, b in zip(self._classes, cell.classes, strict=True)]
        self._started += cell.started
        self._seconds += cell.seconds
        if self._early is None:
            self._blocks = self._blocks.with_(cell, counts)
        if sum(classes) > REMEMBERED and self._seconds > REMEMBERED_SECONDS:
            counts, classes = [n >> 1 for n in counts], [n >> 1 for n in classes]
            self._started >>= 1
            self._seconds /= 2
            self._next = 0
        self._counts, self._classes = _packed(counts), tuple(classes)
        n = sum(counts)
        if n >= self._next:
            self._next = int(n * 1.15) + 3
            self._refit(counts, now)

    def _refit(self, counts: list[int], now: float) -> None:
        self._early = None
        seen = Seen(counts, self._classes, self._started, self._seconds)
        quantiles, errors = quantiles_of(counts), share_of(seen, 0)
        hours = max(0.0, now - self._anchors_at) / 3600
        limits = [*(edge * RISE_PER_HOUR**hours for edge in self._anchors[:-1])]
        quantiles = [min(q, most or inf) for q, most in zip(quantiles, limits, strict=True)]
        if most := self._anchors[-1]:
            errors = min(errors, most + RISE_SHARE_PER_HOUR * hours)
        n, calls = sum(counts), sum(self._classes)
        known = [
            q if n >= least or most else 0.0
            for q, least, most in zip(quantiles, RATCHET_CALLS, limits, strict=True)
        ]
        self._anchors = (*known, errors if calls >= RATCHET_SHARE_CALLS else 0.0)
        self._anchors_at = now
        self.baseline = fit(
            seen, self.timeout, self.dead_band, self.pinned,
            restless=self._blocks.restless(), quantiles=quantiles, errors=errors,
        )  # fmt: skip

    # ------------------------------------------------------------------------- kept through restarts

    def told(self) -> dict[str, Any] | None:
        """What was learned, as plain numbers for a successor; None if it is not enough yet."""
        if self._early is not None:
            return None
        return {
            "version": VERSION,
            "scale": SCALE,
            "counts": opened(self._counts),
            "classes": list(self._classes),
            "started": self._started,
            "seconds": self._seconds,
            "blocks": list(self._blocks),
            "anchors": list(self._anchors),
            "pinned": self.pinned,
        }

    def hear(self, told: object, at: float, now: float) -> bool:
        """Take over what a predecessor had learned at the instant `at`, if nothing is learned here yet.

        False if it is too old, or not needed. Raises ValueError for what no predecessor can have told.
        """
        kept = checked(told)
        if self._early is None or self.anew or not 0.0 <= now - at <= OLDEST_SECONDS:
            return False
        self._forget()
        counts = _unpacked(shut(kept["counts"]))
        self._counts, self._classes = _packed(counts), tuple(kept["classes"])
        self._started, self._seconds = kept["started"], kept["seconds"]
        n, *blocks = kept["blocks"]
        self._blocks, self._anchors = _Blocks(int(n), *blocks), tuple(kept["anchors"])
        self.pinned = kept["pinned"] if self.pinned is None else self.pinned
        self._anchors_at = self.kept_at = at
        self._heard_until = now + REMEMBERED_SECONDS
        self._refit(counts, now)
        return True


class _Early:
    """All that was seen before enough was learned, not only what is old."""

    __slots__ = ("_cell", "_next", "doubted")

    def __init__(self) -> None:
        self._cell = Cell(0.0)
        self._next = EARLY
        self.doubted: list[Tick] = []

    def take(self, tick: Tick) -> None:
        """Put a tick aside until nothing is suspicious."""
        if tick.idle and not self.doubted:
            self._cell.seconds += min(tick.seconds, CELL_SECONDS)
            return
        if len(self.doubted) >= 1024:
            del self.doubted[0]
        self.doubted.append(tick)

    def ready(self) -> bool:
        """Take in what was put aside; whether there is enough for a baseline, or for a better one.

        It will be wider than one that has stood the quarantine, and never laxer than the cold one.
        """
        if not self.doubted:
            return False
        for tick in self.doubted:
            self._cell.add(tick)
        self.doubted.clear()
        answered = sum(self._cell.sketch.answered)
        if answered < self._next:
            return False
        self._next = int(answered * 1.4)
        return True

    def seen(self) -> Seen:
        """Of what was answered: one long wait would leave nothing known of the rest."""
        cell = self._cell
        return Seen(list(cell.sketch.answered), cell.classes, cell.started, cell.seconds)


class _Blocks(NamedTuple):
    """How cells differ from those before: mean and spread of ln(hazard), and what chance explains of it.

    A cell's completion hazard against the whole is calls / sum of -ln S(latency): exactly 1 on average if
    every cell is like the whole. Its spread beyond chance is restlessness.
    """

    n: int
    mean: float
    spread: float
    chance: float

    def with_(self, cell: Cell, counts: list[int]) -> _Blocks:
        """With another cell, against all that is learned."""
        calls = sum(cell.sketch.answered)
        if calls < CELL_CALLS:
            return self
        left, n, whole = sum(counts), sum(counts), 0.0
        for count, mine in zip(counts, cell.sketch.answered, strict=True):
            before, left = left, left - count
            if mine:
                nats = log(max(before / n, 1e-4)) + log(max(left / n, 1e-4))
                whole += mine * max(-nats / 2, 1e-3)
        value, n = log(whole / calls), min(self.n + 1, BLOCKS)
        off = value - self.mean
        mean = self.mean + off / min(n, NEAR_BLOCKS)
        spread = self.spread + (off * (value - mean) - self.spread) / n
        return _Blocks(n, mean, spread, self.chance + (1 / calls - self.chance) / n)

    def restless(self) -> float:
        """The spread beyond chance, drawn towards what is expected of any service."""
        beyond = max(0.0, self.spread - self.chance) if self.n > 1 else 0.0
        n = self.n if self.n > 1 else 0
        prior = _RESTLESS_WEIGHT * _RESTLESS_PRIOR**2
        return sqrt((prior + n * beyond) / (_RESTLESS_WEIGHT + n))


def _hazard(counts: list[int]) -> list[float]:
    left = whole = max(1, sum(counts))
    hazard: list[float] = []
    for count in counts:
        left -= count
        hazard.append(-log(max(left / whole, 1e-4)))
    return hazard


def _packed(counts: list[int]) -> bytes:
    return shut(number for pair in enumerate(counts) if pair[1] for number in pair)


def _unpacked(body: bytes) -> list[int]:
    counts, flat = [0] * BUCKETS, opened(body)
    for index, count in zip(flat[::2], flat[1::2], strict=True):
        counts[index] = count
    return counts
