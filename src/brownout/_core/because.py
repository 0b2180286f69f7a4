"""The verdict and its sentence: what callers suffer, from the numbers that decided, with their limits."""

from __future__ import annotations

from bisect import bisect_right
from math import exp2, inf, isinf, sqrt
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.baseline import LATE, Baseline
from brownout._core.modes import COLUMNS, ERROR, FAST, OVERLOAD, REFUSED, WAITING
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, UNTOLD, Latencies, Sketch, bucket, least
from brownout._core.state import State
from brownout._core.value import Value

if TYPE_CHECKING:
    from brownout._core.cell import Cell
    from brownout._core.evidence import Evidence
    from brownout._core.finding import Finding, Row

POOL_SECONDS = 0.01  # a wait for our own pool that is worth a word
HALF_LIFE_SECONDS = 60.0  # of what is known, without another call
CHRONIC_BAND = 0.1  # so far may errors differ from those since the start, and be unchanged
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
    wrong (silent, errors, refused, overload, shift, tail, too fast; "" when nothing is), `extent` the share
    of calls that it hits; for "shift" how the hazard that a call completes compares to the usual (0.2: five
    times slower). `since` is the monotonic instant at which it began, `at` the one of the
    judgement. `claim` is what the target's own health check says (None: not asked); a `contradiction` is
    a claim of ok while callers suffer. `shape` counts answers by latency on a log axis, 1 ms to 10 s;
    `latencies` are the finer counts of which those of several observers can be added up.
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

    @property
    def contradiction(self) -> bool:
        """Its own health check says ok while its callers suffer."""
        return bool(self.claim) and self.state not in {None, State.HEALTHY}

    def number(self, name: str) -> float:
        """The value of the number called `name`; KeyError if the verdict has none."""
        for number in self.numbers:
            if number.name == name:
                return number.value
        raise KeyError(name)


def seconds(value: float) -> str:
    """A span as a person writes it: 6 ms, 0.25 s, 12 s."""
    if isinf(value):
        return "never"
    if value < 0.0995:
        return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def share(part: float, whole: float) -> str:
    """A share as a person writes it: 0.4 %, 27 %."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.1f} %" if 0 < percent < 1 else f"{percent:.0f} %"


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
) -> Verdict:
    """The verdict on one operation; `rows` are the judge's latest, which a healthy verdict tells of."""
    window = evidence.window()
    numbers = _numbers(window, evidence, base, last)
    if finding is not None:
        because = _sentence(finding, base) + _kept(base, evidence.at)
        if claim is not None and claim.ok:
            because += (
                f"; its own health check said ok {max(0.0, evidence.at - claim.at):.1f} s ago"
            )
    elif state is not None:
        because = _healthy(_recent(rows, [0] * COLUMNS), base, window.sketch.quantile(0.5)) + _kept(
            base, evidence.at
        )
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
        extent=finding.extent if finding else 0.0,
        because=because,
        numbers=numbers,
        shape=_shape(window.sketch),
        since=finding.onset if finding else evidence.at,
        at=evidence.at,
        claim=claim.ok if claim else None,
        latencies=window.sketch.told(),
    )


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


class _Recent(NamedTuple):
    """The calls that decided, added up: what the sentences speak of."""

    ended: int
    waiting: int
    counts: list[int]
    sketch: Sketch
    span: float
    started: int
    queued: float

    @property
    def calls(self) -> int:
        return self.ended + self.waiting

    @property
    def rate(self) -> float:
        return self.started / self.span


def _recent(rows: tuple[Row, ...], waiting: list[int]) -> _Recent:
    counts = [sum(column) for column in zip(*(row.calls for row in rows), strict=True)] or [
        0
    ] * COLUMNS
    sketch = Sketch()
    for row in rows:
        for index, count in row.tick.answered:
            sketch.answered[index] += count
    span = max(0.1, sum(row.tick.seconds for row in rows))
    started = sum(row.tick.started for row in rows)
    queued = sum(row.tick.waited for row in rows)
    return _Recent(sum(counts), sum(waiting[WAITING + 1 :]), counts, sketch, span, started, queued)


def _healthy(recent: _Recent, base: Baseline, median: float) -> str:
    right = sum(recent.counts[: LATE + 1]) + recent.counts[FAST]
    text = f"{right} of {recent.ended} calls {_span(recent)} are right"
    text += f", {seconds(median)} at the median" if right else ""
    return (
        f"{text} (usual {seconds(base.p50)})"
        if not base.cold
        else f"{text}; still learning what is usual"
    )


def _kept(base: Baseline, now: float) -> str:
    """Where what is usual was learned by a predecessor, and is not yet our own."""
    if base.kept_at == inf:
        return ""
    return f"; the usual is from before this process began, {seconds(now - base.kept_at)} old"


def _sentence(finding: Finding, base: Baseline) -> str:
    recent = _recent(finding.rows, finding.waiting)
    text = _SENTENCES[finding.kind](finding, recent, base)
    if finding.kind in {"silent", "shift", "tail"}:
        text += _load(finding, recent, base)
    text += _whose(finding)
    wait = recent.queued / max(1, recent.ended)
    return (
        f"{text}; before that calls wait {seconds(wait)} for our own pool"
        if wait > POOL_SECONDS
        else text
    )


def _span(recent: _Recent) -> str:
    return f"in {recent.span:.1f} s"


def _rest(recent: _Recent) -> str:
    median = recent.sketch.quantile(0.5)
    return f"; the rest answer in {seconds(median)}" if sum(recent.sketch.answered) >= 3 else ""


def _load(finding: Finding, recent: _Recent, base: Baseline) -> str:
    if not base.rate or (finding.state is State.UNRESPONSIVE and not finding.load):
        return ""
    rate = f"{_rate(recent.rate)} calls/s, usual {_rate(base.rate)}"
    if finding.load == "queue":
        return f"; the more calls are under way, the longer each takes: it is full ({rate})"
    return (
        f"; more load than usual explains it ({rate})"
        if finding.load
        else f"; load does not explain it ({rate})"
    )


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _whose(finding: Finding) -> str:
    """The label that tells the bad calls from the good ones."""
    split = finding.split
    if split is None:
        return ""
    there = f"{split.bad} of {split.calls} calls there, {split.other_bad} of {split.other_calls} elsewhere"
    return f"; it is {split.label} {', '.join(split.values)}: {there}"


def _silent(finding: Finding, recent: _Recent, base: Baseline) -> str:
    silent = recent.counts[WAITING + LATE] + finding.waiting[WAITING + LATE]
    usual = f" (usual p99 {seconds(base.p99)})" if not base.cold else ""
    answered = sum(recent.counts[: LATE + 1]) + recent.counts[FAST]
    if not silent:
        waiting = sum(recent.counts[WAITING + 1 :]) + recent.waiting
        calls = f"{waiting} of {recent.calls} calls {_span(recent)}"
        return f"{calls} wait longer than usual for an answer{usual}"
    if not answered:
        text = f"none of {recent.calls} calls {_span(recent)} was answered;"
        return f"{text} {silent} of them have waited {seconds(base.silent_after)} or longer{usual}"
    text = f"{silent} of {recent.calls} calls {_span(recent)} were sent and got no answer"
    text += f" within {seconds(base.silent_after)}{usual}"
    return text + (_rest(recent) if finding.state is State.DEGRADED else "")


def _errors(_: Finding, recent: _Recent, base: Baseline) -> str:
    bad = recent.counts[ERROR]
    chronic = base.chronic
    if chronic and abs(bad - chronic * recent.calls) <= CHRONIC_BAND * recent.calls + 3 * sqrt(bad):
        return (
            f"errors {share(chronic, 1)}, unchanged since start ({bad} of {recent.calls}"
            f" {_span(recent)}); if that is its usual, guard.relearn(errors={chronic:.2f}) says so"
        )
    usual = f", usual {share(base.errors, 1)} at most" if not base.cold else ""
    return (
        f"{share(bad, recent.calls)} of calls fail"
        f" ({bad} of {recent.calls} {_span(recent)}{usual}){_rest(recent)}"
    )


def _refused(finding: Finding, recent: _Recent, _base: Baseline) -> str:
    bad = recent.counts[REFUSED]
    text = (
        f"{bad} of {recent.calls} calls {_span(recent)} were refused at once: nobody listens there"
    )
    return text + (_rest(recent) if finding.state is State.DEGRADED else "")


def _overload(_: Finding, recent: _Recent, base: Baseline) -> str:
    bad = recent.counts[OVERLOAD]
    usual = f", usual {base.rate:.0f}" if base.rate else ""
    return (
        f"{share(bad, recent.calls)} of calls are turned away as too many ({bad} of {recent.calls}"
        f" {_span(recent)}; {recent.rate:.0f} calls/s{usual}){_rest(recent)}"
    )


def _slow(finding: Finding, recent: _Recent, base: Baseline) -> str:
    limit = base.thresholds[2]
    slow = sum(recent.counts[3 : LATE + 1]) + sum(recent.counts[WAITING + 3 :])
    slow += sum(finding.waiting[WAITING + 3 :])
    fast = sum(recent.counts[:3]) + recent.counts[FAST]
    usual = f"(usual: 1 % at most longer than {seconds(limit)})"
    if slow and fast >= 0.1 * recent.calls and finding.kind == "tail":
        body, hump = _halves(recent.sketch, bucket(limit))
        rest = (
            f"take {seconds(hump.quantile(0.5))}"
            if hump.count
            else f"wait {seconds(limit)} or longer"
        )
        return (
            f"two humps: {share(fast, recent.calls)} of calls answer in {seconds(body.quantile(0.5))},"
            f" {share(slow, recent.calls)} {rest} {usual}"
        )
    return (
        f"calls take {seconds(recent.sketch.quantile(0.5))} at the median (usual {seconds(base.p50)}),"
        f" {share(slow, recent.calls)} longer than {seconds(limit)} (usual 1 % at most)"
    )


def _too_fast(_: Finding, recent: _Recent, base: Baseline) -> str:
    fast = recent.counts[FAST]
    return (
        f"{share(fast, recent.calls)} of calls are answered sooner than {seconds(least(base.fast))}"
        f" ({fast} of {recent.calls} {_span(recent)}, usual 5 % at most; usual median {seconds(base.p50)}):"
        " perhaps they fail without saying so"
    )


def _halves(sketch: Sketch, at: int) -> tuple[Sketch, Sketch]:
    """The answers below a bucket, and those from it on."""
    low, high = Sketch(), Sketch()
    low.answered[:at] = sketch.answered[:at]
    high.answered[at:] = sketch.answered[at:]
    return low, high


_SENTENCES = {
    "silent": _silent,
    "errors": _errors,
    "refused": _refused,
    "overload": _overload,
    "shift": _slow,
    "tail": _slow,
    "too fast": _too_fast,
}
