"""The verdict and its sentence: what callers suffer, from the numbers that decided, with their limits."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.judge import ERROR, OVERLOAD, REFUSED, WAITING, Finding
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import BUCKETS, Sketch, bucket
from brownout._core.state import State
from brownout._core.usual import LATE, Baseline

if TYPE_CHECKING:
    from brownout._core.evidence import Cell, Evidence

ENOUGH_CALLS = 20  # fewer in the window are no evidence that a target is HEALTHY
SHAPE_EDGES = (0.001, 0.0025, 0.0063, 0.016, 0.04, 0.1, 0.25, 0.63, 1.6, 4.0)  # 1 ms to 10 s, log


class Number(NamedTuple):
    """One number of a verdict: what was measured, and the limit or usual value it is held against."""

    name: str
    value: float
    limit: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a target (or of one operation of it) with the sentence and numbers that decided it.

    `state` is None without evidence, and `because` then says how little there was. `kind` is what is
    wrong (silent, errors, refused, overload, shift, tail; "" when nothing is), `extent` how much of it
    the best explanation assumes. `since` is the monotonic instant at which it began, `at` the one of the
    judgement. `claim` is what the target's own health check says (None: not asked); a `contradiction` is
    a claim of ok while callers suffer. `shape` counts answers by latency on a log axis, 1 ms to 10 s.
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
    claim: bool | None,  # noqa: FBT001 - three values
) -> Verdict:
    """The verdict on one operation."""
    window = evidence.window()
    numbers = _numbers(window, evidence, base)
    if finding is not None:
        because = _sentence(finding, base)
        if claim:
            because += "; its health check says ok"
    elif state is not None:
        because = _healthy(window, base)
    else:
        because = f"no evidence: {window.calls} calls in 30 s, {ENOUGH_CALLS} are needed"
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
        claim=claim,
    )


def _numbers(window: Cell, evidence: Evidence, base: Baseline) -> tuple[Number, ...]:
    span = max(0.1, evidence.at - window_start(evidence))
    classes, sketch = window.classes, window.sketch
    learned = not base.cold
    return (
        Number("calls", window.calls, None, "1"),
        Number("succeeded", classes[OutcomeClass.SUCCESS], None, "1"),
        Number("failed", classes[OutcomeClass.FAILURE], base.errors * window.calls, "1"),
        Number("overload", classes[OutcomeClass.OVERLOAD], base.overload * window.calls, "1"),
        Number("refused", classes[OutcomeClass.CONNECT], base.refused * window.calls, "1"),
        Number("unanswered", classes[OutcomeClass.UNKNOWN], base.silent * window.calls, "1"),
        Number("local", classes[OutcomeClass.LOCAL], None, "1"),
        Number("in_flight", evidence.in_flight, None, "1"),
        Number("calls_per_second", window.started / span, base.rate if learned else None, "1/s"),
        Number("p50_seconds", sketch.quantile(0.5), base.p50 if learned else None, "s"),
        Number("p99_seconds", sketch.quantile(0.99), base.p99 if learned else None, "s"),
        Number("silent_after_seconds", base.silent_after, None, "s"),
        Number("pool_wait_seconds", window.waited / max(1, window.calls), None, "s"),
    )


def window_start(evidence: Evidence) -> float:
    """The instant at which the window begins."""
    return evidence.cells[0].at if evidence.cells else evidence.at


def _shape(sketch: Sketch) -> tuple[int, ...]:
    counts = [0] * len(SHAPE_EDGES)
    for index in range(BUCKETS):
        if n := sketch.answered[index] + sketch.censored[index]:
            counts[_SHAPE_OF[index]] += n
    return tuple(counts)


_SHAPE_OF = [
    max(
        i
        for i, edge in enumerate((0.0, *SHAPE_EDGES[1:]))
        if index >= (bucket(edge) if edge else 0)
    )
    for index in range(BUCKETS)
]


def _healthy(window: Cell, base: Baseline) -> str:
    ok = window.classes[OutcomeClass.SUCCESS]
    p99 = window.sketch.quantile(0.99)
    text = (
        f"{share(ok, window.calls)} of {window.calls} calls in 30 s are right, p99 {seconds(p99)}"
    )
    return (
        f"{text} (usual {seconds(base.p99)})"
        if not base.cold
        else f"{text}; still learning what is usual"
    )


class _Recent(NamedTuple):
    """The calls that decided, added up: what the sentences speak of."""

    ended: int
    waiting: int
    counts: list[int]
    sketch: Sketch
    span: float
    started: int

    @property
    def calls(self) -> int:
        return self.ended + self.waiting

    @property
    def rate(self) -> float:
        return self.started / self.span


def _recent(finding: Finding) -> _Recent:
    counts = [sum(column) for column in zip(*(row.calls for row in finding.rows), strict=True)]
    sketch = Sketch()
    for row in finding.rows:
        for index, count in row.tick.answered:
            sketch.answered[index] += count
    span = max(0.1, sum(row.tick.seconds for row in finding.rows))
    started = sum(row.tick.started for row in finding.rows)
    waiting = sum(finding.waiting[WAITING + 1 :])
    return _Recent(sum(counts), waiting, counts, sketch, span, started)


def _sentence(finding: Finding, base: Baseline) -> str:
    recent = _recent(finding)
    text = _SENTENCES[finding.kind](finding, recent, base)
    if finding.kind in {"silent", "shift", "tail"}:
        text += _load(finding, recent, base)
    return text


def _span(recent: _Recent) -> str:
    return f"in {recent.span:.1f} s"


def _rest(recent: _Recent) -> str:
    median = recent.sketch.quantile(0.5)
    return f"; the rest answer in {seconds(median)}" if sum(recent.sketch.answered) >= 3 else ""


def _load(finding: Finding, recent: _Recent, base: Baseline) -> str:
    if base.cold or (finding.state is State.UNRESPONSIVE and not finding.load):
        return ""
    rate = f"{recent.rate:.0f} calls/s, usual {base.rate:.0f}"
    return (
        f"; more load than usual explains it ({rate})"
        if finding.load
        else f"; load does not explain it ({rate})"
    )


def _silent(finding: Finding, recent: _Recent, base: Baseline) -> str:
    silent = recent.counts[WAITING + LATE] + finding.waiting[WAITING + LATE]
    slow = sum(recent.counts[WAITING + 1 :]) + recent.waiting
    silent = silent or slow
    text = (
        f"{silent} of {recent.calls} calls {_span(recent)} were sent and got no answer"
        f" within {seconds(base.silent_after)}"
    )
    text += f" (usual p99 {seconds(base.p99)})" if not base.cold else ""
    return text + (_rest(recent) if finding.state is State.DEGRADED else "")


def _errors(_: Finding, recent: _Recent, base: Baseline) -> str:
    bad = recent.counts[ERROR]
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
    usual = f", usual {base.rate:.0f}" if not base.cold else ""
    return (
        f"{share(bad, recent.calls)} of calls are turned away as too many ({bad} of {recent.calls}"
        f" {_span(recent)}; {recent.rate:.0f} calls/s{usual}){_rest(recent)}"
    )


def _slow(finding: Finding, recent: _Recent, base: Baseline) -> str:
    slow_levels = (3, 4, LATE)
    slow = sum(recent.counts[level] for level in slow_levels) + sum(recent.counts[WAITING + 3 :])
    slow += sum(finding.waiting[WAITING + 3 :])
    fast = recent.counts[0] + recent.counts[1] + recent.counts[2]
    limit = base.thresholds[2]
    if slow and fast >= 0.1 * recent.calls and finding.kind == "tail":
        body = seconds(_median(recent.sketch, below=limit))
        return (
            f"two humps: {share(fast, recent.calls)} of calls answer in {body},"
            f" {share(slow, recent.calls)} take or wait {seconds(limit)} or longer"
            f" (usual 1 % at most)"
        )
    return (
        f"calls take {seconds(recent.sketch.quantile(0.5))} at the median (usual {seconds(base.p50)}),"
        f" {share(slow, recent.calls)} longer than {seconds(limit)} (usual 1 % at most)"
    )


def _median(sketch: Sketch, *, below: float) -> float:
    body = Sketch()
    body.answered[: bucket(below)] = sketch.answered[: bucket(below)]
    return body.quantile(0.5)


_SENTENCES = {
    "silent": _silent,
    "errors": _errors,
    "refused": _refused,
    "overload": _overload,
    "shift": _slow,
    "tail": _slow,
}
