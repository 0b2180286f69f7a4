"""The sentences: what callers suffer, from the calls that decided, with their limits."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.age import STALE, stale
from brownout._core.baseline import LATE, Baseline
from brownout._core.modes import COLUMNS, ERROR, FAST, OVERLOAD, REFUSED, WAITING
from brownout._core.sketch import Sketch, bucket, least
from brownout._core.state import State
from brownout._core.words import seconds, share

if TYPE_CHECKING:
    from brownout._core.finding import Finding, Row

POOL_SECONDS = 0.01  # a wait for our own pool that is worth a word
CHRONIC_LEAST = 0.1  # of calls that failed since the start, before that is said to be unchanged
CHRONIC_BAND = 0.1  # so far may errors differ from those since the start, and be unchanged


class Deciding(NamedTuple):
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


def deciding(rows: tuple[Row, ...], waiting: list[int]) -> Deciding:
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
    return Deciding(sum(counts), sum(waiting[WAITING + 1 :]), counts, sketch, span, started, queued)


def right(recent: Deciding) -> str:
    """How many calls went well."""
    well = sum(recent.counts[: LATE + 1]) + recent.counts[FAST]
    return f"{well} of {recent.ended} calls {_span(recent)} are right"


def healthy(recent: Deciding, base: Baseline, median: float) -> str:
    text = right(recent)
    text += f", {seconds(median)} at the median" if not text.startswith("0 ") else ""
    return (
        f"{text} (usual {seconds(base.p50)})"
        if not base.cold
        else f"{text}; still learning what is usual"
    )


def kept(base: Baseline, now: float) -> str:
    """Where what is usual was learned by a predecessor, and is not yet our own."""
    if base.kept_at == inf:
        return ""
    return f"; the usual is from before this process began, {seconds(now - base.kept_at)} old"


def suffered(finding: Finding, base: Baseline) -> str:
    recent = deciding(finding.rows, finding.waiting)
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


def _span(recent: Deciding) -> str:
    return f"in {recent.span:.1f} s"


def _rest(recent: Deciding) -> str:
    median = recent.sketch.quantile(0.5)
    return f"; the rest answer in {seconds(median)}" if sum(recent.sketch.answered) >= 3 else ""


def _load(finding: Finding, recent: Deciding, base: Baseline) -> str:
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


def _silent(finding: Finding, recent: Deciding, base: Baseline) -> str:
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


def _errors(_: Finding, recent: Deciding, base: Baseline) -> str:
    bad = recent.counts[ERROR]
    chronic = base.chronic
    calls = max(1, recent.calls)
    band = max(CHRONIC_BAND, 2 * sqrt(chronic * (1 - chronic) / calls))
    # Less may as well have begun a moment ago, in what was well before.
    if chronic > max(CHRONIC_LEAST, base.errors) and abs(bad / calls - chronic) <= band:
        return (
            f"errors {share(chronic, 1)}, unchanged since start ({bad} of {recent.calls}"
            f" {_span(recent)}); if that is its usual, guard.relearn(errors={chronic:.2f}) says so"
        )
    usual = f", usual {share(base.errors, 1)} at most" if not base.cold else ""
    return (
        f"{share(bad, recent.calls)} of calls fail"
        f" ({bad} of {recent.calls} {_span(recent)}{usual}){_rest(recent)}"
    )


def _refused(finding: Finding, recent: Deciding, _base: Baseline) -> str:
    bad = recent.counts[REFUSED]
    text = (
        f"{bad} of {recent.calls} calls {_span(recent)} were refused at once: nobody listens there"
    )
    return text + (_rest(recent) if finding.state is State.DEGRADED else "")


def _overload(_: Finding, recent: Deciding, base: Baseline) -> str:
    bad = recent.counts[OVERLOAD]
    usual = f", usual {base.rate:.0f}" if base.rate else ""
    return (
        f"{share(bad, recent.calls)} of calls are turned away as too many ({bad} of {recent.calls}"
        f" {_span(recent)}; {recent.rate:.0f} calls/s{usual}){_rest(recent)}"
    )


def _slow(finding: Finding, recent: Deciding, base: Baseline) -> str:
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


def _stale(_: Finding, recent: Deciding, base: Baseline) -> str:
    return stale(recent.sketch, base)


def _too_fast(_: Finding, recent: Deciding, base: Baseline) -> str:
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
    STALE: _stale,
    "too fast": _too_fast,
}
