"""The verdict and its sentence: what callers suffer, from the numbers that decided, with their limits."""

from __future__ import annotations

from bisect import bisect_right
from math import exp2, inf
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.age import AGE, fresh
from brownout._core.hazard import theta
from brownout._core.modes import COLUMNS
from brownout._core.outcome import OutcomeClass
from brownout._core.sentence import deciding, healthy, kept, suffered
from brownout._core.sketch import BUCKETS, UNTOLD, Latencies, Sketch, bucket
from brownout._core.state import State
from brownout._core.value import Value
from brownout._core.words import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.baseline import Baseline
    from brownout._core.cell import Cell
    from brownout._core.evidence import Evidence
    from brownout._core.finding import Finding, Row
    from brownout._core.recent import Recent

HALF_LIFE_SECONDS = 60.0  # of what is known, without another call
ENOUGH_CALLS = 20  # fewer in the window are no evidence that a target is HEALTHY
SHAPE_EDGES = (0.001, 0.0025, 0.0063, 0.016, 0.04, 0.1, 0.25, 0.63, 1.6, 4.0)  # 1 ms to 10 s, log


class Number(NamedTuple):
    """One number of a verdict: what was measured, and the limit or usual value it is held against."""

    name: str
    value: float
    limit: float | None
    unit: str


class Claim(NamedTuple):
    """What a target's own health check said, and when (a monotonic instant)."""

    ok: bool
    at: float


class Last(NamedTuple):
    """What was known when calls last said so, and when (a monotonic instant)."""

    state: State | None
    at: float

    def confidence(self, now: float) -> float:
        """How much it still says: half as much after each minute without a call."""
        return exp2(-max(0.0, now - self.at) / HALF_LIFE_SECONDS)


class Verdict(Value):
    """The state of a target (or of one operation of it) with the sentence and numbers that decided it.

    `state` is None without evidence, and `because` then says how little there was. `kind` is what is
    wrong (silent, errors, refused, overload, shift, tail, too fast, stale; "" when nothing is), `extent` the
    share of calls that it hits; for "shift" how the hazard that a call completes compares to the usual (0.2:
    five times slower). `since` is the monotonic instant at which it began, `at` the one of the
    judgement. `claim` is what the target's own health check says (None: not asked); a `contradiction` is
    a claim of ok while callers suffer. `shape` counts answers by latency on a log axis, 1 ms to 10 s;
    `latencies` are the finer counts of which those of several observers can be added up, and `recent` how
    many of the latest calls were bad, for several spans. `own` is what this process itself was in trouble
    with ("" if nothing was): then its slowness is not held against the target.
    """

    target: str
    operation: str
    state: State | None
    kind: str
    extent: float
    because: str
    numbers: tuple[Number, ...]
    shape: tuple[int, ...]
    since: float
    at: float
    claim: bool | None = None
    latencies: Latencies = UNTOLD
    recent: tuple[Recent, ...] = ()
    own: str = ""

    @property
    def contradiction(self) -> bool:
        """Its own health check says ok while its callers suffer."""
        return bool(self.claim) and self.state not in {None, State.HEALTHY}

    def suspecting(self, own: str) -> Verdict:
        """The same of a process that has trouble of its own: where callers suffer, the sentence says so."""
        if not own:
            return self
        ill = self.state not in {None, State.HEALTHY}
        because = f"{self.because}; look at this process first: {own}" if ill else self.because
        return self.__replace__(
            own=f"{self.own}; {own}" if self.own else own,
            because=because,
        )

    def number(self, name: str) -> float:
        """The value of the number called `name`; KeyError if the verdict has none."""
        for number in self.numbers:
            if number.name == name:
                return number.value
        raise KeyError(name)


def judged(
    target: str,
    operation: str,
    evidence: Evidence,
    base: Baseline,
    finding: Finding | None,
    state: State | None,
    rows: tuple[Row, ...],
    claim: Claim | None,
    last: Last | None = None,
    hazard: Sequence[float] = (),
) -> Verdict:
    """The verdict on one operation; `rows` are the judge's latest, which a healthy verdict tells of.

    `hazard` is -ln of the share of calls that usually take longer, by bucket (empty: not known).
    """
    window = evidence.window()
    numbers = _numbers(window, evidence, base, last)
    slow = theta(rows if finding is None else finding.rows, hazard)
    if slow is not None:
        numbers += (Number("theta", slow, 1.0, "1"),)
    if finding is not None:
        because = suffered(finding, base) + kept(base, evidence.at)
        if claim is not None and claim.ok:
            ago = f"{max(0.0, evidence.at - claim.at):.1f} s ago"
            because += f"; its own health check said ok {ago}"
    elif state is not None:
        recent = deciding(rows, [0] * COLUMNS)
        if operation.endswith(AGE):
            because = fresh(window.sketch, recent.span, base)
        else:
            because = healthy(recent, base, window.sketch.quantile(0.5))
        because += kept(base, evidence.at)
    elif window.calls >= ENOUGH_CALLS:
        because = f"no evidence: {window.calls} calls in 30 s are too few to tell what is wrong"
    else:
        because = f"no evidence: {window.calls} calls in 30 s, {ENOUGH_CALLS} are needed"
    if finding is None and state is None and last is not None and last.state is not None:
        because += f"; last known {last.state.name}, {seconds(evidence.at - last.at)} ago"
    return Verdict(
        target=target,
        operation=operation,
        state=state,
        kind=finding.kind if finding else "",
        extent=_extent(finding, slow) if finding else 0.0,
        because=because,
        numbers=numbers,
        shape=_shape(window.sketch),
        since=finding.onset if finding else evidence.at,
        at=evidence.at,
        claim=claim.ok if claim else None,
        latencies=window.sketch.told(),
    )


def _extent(finding: Finding, slow: float | None) -> float:
    return min(1.0, slow) if slow and finding.kind == "shift" else finding.extent


def _numbers(
    window: Cell, evidence: Evidence, base: Baseline, last: Last | None
) -> tuple[Number, ...]:
    span = max(0.1, evidence.at - evidence.began)
    classes, sketch = window.classes, window.sketch
    learned, kept = not base.cold, base.kept_at < inf
    return (
        Number("calls", window.calls, None, "1"),
        Number("succeeded", classes[OutcomeClass.SUCCESS], None, "1"),
        Number("failed", classes[OutcomeClass.FAILURE], base.errors * window.calls, "1"),
        Number("overload", classes[OutcomeClass.OVERLOAD], base.overload * window.calls, "1"),
        Number("refused", classes[OutcomeClass.CONNECT], base.refused * window.calls, "1"),
        Number("unanswered", classes[OutcomeClass.UNKNOWN], base.silent * window.calls, "1"),
        Number("local", classes[OutcomeClass.LOCAL], None, "1"),
        Number("in_flight", evidence.in_flight, None, "1"),
        Number("calls_per_second", window.started / span, base.rate or None, "1/s"),
        Number("p50_seconds", sketch.quantile(0.5), base.p50 if learned else None, "s"),
        Number("p99_seconds", sketch.quantile(0.99), base.p99 if learned else None, "s"),
        Number("silent_after_seconds", base.silent_after, None, "s"),
        Number("pool_wait_seconds", window.waited / max(1, window.calls), None, "s"),
        Number("confidence", last.confidence(evidence.at) if last else 0.0, None, "1"),
        *((Number("usual_age_seconds", evidence.at - base.kept_at, None, "s"),) if kept else ()),
    )


def _shape(sketch: Sketch) -> tuple[int, ...]:
    counts = [0] * len(SHAPE_EDGES)
    for index in range(BUCKETS):
        if n := sketch.answered[index] + sketch.censored[index]:
            counts[_SHAPE_OF[index]] += n
    return tuple(counts)


_STARTS = [bucket(edge) for edge in SHAPE_EDGES[1:]]
_SHAPE_OF = [bisect_right(_STARTS, index) for index in range(BUCKETS)]
