"""Real labelled faults: the calls of two microservice systems (Nezha, FSE'23), as recorded calls.

`convert` writes one CSV for each of the four days; `visible` says which of the 101 injected faults left
any mark in what the callers of the faulty service saw, and from when on (an offline test that may look
at the whole day); `score` holds a replay's changes against them.
"""

from __future__ import annotations

import csv
import gzip
import json
from bisect import bisect_left
from math import exp, inf, isnan, lgamma, log, nan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.diagnosis.synthetic import share_of
from brownout import OutcomeClass, State
from brownout.replay import HEADER, Change, Record, Replay, Settings

VISIBLE = Path(__file__).with_name("nezha_visible.json")
FAULT_SECONDS = 180.0
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 200.0  # of a fault's label: not outside of it
_OUTCOMES = {"0": OutcomeClass.SUCCESS, "1": OutcomeClass.SUCCESS, "2": OutcomeClass.FAILURE}


class Fault(NamedTuple):
    """An injected fault, in seconds of its day; `other` is the later one of its two labelled starts."""

    run: int
    begin: float
    other: float
    service: str
    kind: str

    @property
    def end(self) -> float:
        return self.other + FAULT_SECONDS


class Day(NamedTuple):
    """One day: its calls in order of their start, when it was recorded, and its faults."""

    run: int
    name: str
    system: str
    has_status: bool
    calls: list[Record]
    segments: list[tuple[float, float]]
    faults: list[Fault]

    def covered(self, begin: float, end: float) -> float:
        """Seconds of it that were recorded."""
        return sum(max(0.0, min(end, b) - max(begin, a)) for a, b in self.segments)

    def inside(self, at: float) -> bool:
        """Whether a fault's time is near."""
        return any(f.begin - BEFORE_SECONDS <= at < f.other + AFTER_SECONDS for f in self.faults)


class Seen(NamedTuple):
    """Whether a fault left a mark: "" or slow, err, fast; the onset in seconds after its label; its calls."""

    why: str
    onset: float
    calls: int


def load(folder: Path) -> list[Day]:
    """The data as it is published in `folder` (nezha_meta.json, nezha_calls.csv.gz)."""
    meta: dict[str, Any] = json.loads((folder / "nezha_meta.json").read_text("utf-8"))
    edges = meta["edges"]
    calls: list[list[Record]] = [[] for _ in meta["runs"]]
    with gzip.open(folder / "nezha_calls.csv.gz", "rt") as text:
        for row in csv.DictReader(text):
            observer, target, operation = edges[int(row["edge"])]
            start, took = int(row["t_ms"]) / 1e3, int(row["dur_us"]) / 1e6
            told = Record(start, observer, target, operation, took, _OUTCOMES[row["outcome"]])
            calls[int(row["run"])].append(told)
    days = []
    for number, run in enumerate(meta["runs"]):
        faults = [
            Fault(number, f["start_ms"] / 1e3, f["alt_start_ms"] / 1e3, f["service"], f["type"])
            for f in run["faults"]
        ]
        segments = [(a / 1e3, b / 1e3) for a, b in run["segments_ms"]]
        ordered = sorted(calls[number], key=lambda call: call.start_seconds)
        what = (run["day"], run["system"], run["has_status"])
        days.append(Day(number, *what, ordered, segments, faults))
    return days


def convert(day: Day, path: Path) -> None:
    """Write a day as `brownout replay` reads it."""
    names = {OutcomeClass.SUCCESS: "answered", OutcomeClass.FAILURE: "error"}
    with path.open("w", encoding="utf-8") as text:
        print(HEADER, file=text)
        for call in day.calls:
            who = f"{call.observer},{call.target},{call.operation}"
            took = f"{call.duration_seconds:.6f},{names[call.outcome]}"
            print(f"{call.start_seconds:.3f},{who},{took}", file=text)


# ------------------------------------------------------------------------- what could be seen at all


def visible(day: Day) -> list[Seen]:
    """Of each fault of a day, whether and from when on callers could see it."""
    outside: dict[tuple[str, ...], list[float]] = {}
    errors: dict[str, list[int]] = {}
    for call in day.calls:
        if not day.inside(call.start_seconds):
            outside.setdefault(call[1:4], []).append(call.duration_seconds)
            errors.setdefault(call.target, []).append(call.outcome)
    ranks = {edge: sorted(took) for edge, took in outside.items() if len(took) >= 5}
    return [_seen(fault, day, ranks, errors.get(fault.service, [])) for fault in day.faults]


def _seen(
    fault: Fault, day: Day, ranks: dict[tuple[str, ...], list[float]], usual: list[int]
) -> Seen:
    near = [
        (call, _rank(call, ranks))
        for call in day.calls
        if call.target == fault.service and fault.begin - 60 <= call.start_seconds < fault.end
    ]
    during = [(call, rank) for call, rank in near if call.start_seconds >= fault.begin]
    n = len(during)
    if n < 5:
        return Seen("", nan, n)
    known = [rank for _, rank in during if not isnan(rank)]
    bad = sum(call.outcome == OutcomeClass.FAILURE for call, _ in during)
    usually = sum(one == OutcomeClass.FAILURE for one in usual) / len(usual) if usual else 0.0
    slow, fast = sum(rank > 0.95 for rank in known), sum(rank < 0.01 for rank in known)
    m = max(len(known), 1)
    if at_least(slow, m, 0.07) < 1e-4 and slow / m > 0.2:
        marks = [rank > 0.95 for _, rank in near]
        why = "slow"
    elif (
        day.has_status
        and at_least(bad, n, max(usually * 1.5 + 0.01, 0.01)) < 1e-4
        and bad / n > usually + 0.05
    ):
        marks = [call.outcome == OutcomeClass.FAILURE for call, _ in near]
        why = "err"
    elif at_least(fast, m, 0.02) < 1e-4 and fast / m > 0.1:
        marks = [rank < 0.01 for _, rank in near]
        why = "fast"
    else:
        return Seen("", nan, n)
    return Seen(why, _onset([call.start_seconds for call, _ in near], marks) - fault.begin, n)


def _rank(call: Record, ranks: dict[tuple[str, ...], list[float]]) -> float:
    known = ranks.get(call[1:4])
    return (bisect_left(known, call.duration_seconds) + 0.5) / (len(known) + 1) if known else nan


def at_least(count: int, n: int, share: float) -> float:
    """The probability of so many of n by chance (binomial)."""
    if count <= 0:
        return 1.0
    log_n = lgamma(n + 1)
    terms = (
        log_n - lgamma(k + 1) - lgamma(n - k + 1) + k * log(share) + (n - k) * log(1 - share)
        for k in range(count, n + 1)
    )
    return min(1.0, sum(exp(term) for term in terms))


def _onset(times: list[float], marks: list[bool]) -> float:
    """The change point of a share that has risen (maximum likelihood)."""
    n, whole, before = len(marks), sum(marks), 0
    best, at = -inf, nan
    for i in range(1, n - 2):
        before += marks[i - 1]
        after = whole - before
        if after / (n - i) <= before / i:
            continue
        fit = _fit(before, i) + _fit(after, n - i)
        if fit > best:
            best, at = fit, times[i]
    return at


def _fit(count: int, n: int) -> float:
    if not 0 < count < n:
        return 0.0
    return count * log(count / n) + (n - count) * log(1 - count / n)


# --------------------------------------------------------------------------------- how it was judged


class Alarm(NamedTuple):
    """From the first name of a trouble of a target to its end."""

    target: str
    begin: float
    end: float
    kind: str


def alarms(changes: list[Change]) -> list[Alarm]:
    """What a replay has found: overlapping troubles of one target's operations are one each."""
    open_: dict[tuple[str, str], tuple[float, str]] = {}
    found: list[Alarm] = []
    for change in changes:
        key = (change.target, change.operation)
        ill = change.state not in {None, State.HEALTHY}
        if ill and key not in open_:
            open_[key] = (change.t_seconds, change.kind)
        elif not ill and key in open_:
            begin, kind = open_.pop(key)
            found.append(Alarm(change.target, begin, change.t_seconds, kind))
    found += [Alarm(key[0], begin, inf, kind) for key, (begin, kind) in open_.items()]
    return sorted(found, key=lambda alarm: alarm.begin)


class Found(NamedTuple):
    """A fault that could be seen: whether it was found, and seconds from its label and from its onset."""

    system: str
    kind: str
    why: str
    found: bool
    delay: float
    from_onset: float
    said: str
    service: str = ""
    begin: float = 0.0
    calls: int = 0


def found(day: Day, every: list[Alarm], seen: list[Seen]) -> list[Found]:
    """How the faults of a day fared that could be seen."""
    told = []
    for fault, mark in zip(day.faults, seen, strict=True):
        if not mark.why:
            continue
        during = [a for a, b in day.segments if b > fault.begin and a < fault.end]
        start = max(fault.begin, min((max(a, fault.begin) for a in during), default=fault.begin))
        mine = [
            alarm
            for alarm in every
            if alarm.target == fault.service
            and alarm.end > fault.begin - 1
            and alarm.begin < fault.end
        ]
        first = min((max(alarm.begin, start) for alarm in mine), default=inf)
        onset = max(start, fault.begin + (0.0 if isnan(mark.onset) else mark.onset))
        what = (day.system, fault.kind, mark.why, bool(mine), first - start)
        said = mine[0].kind if mine else ""
        told.append(
            Found(*what, max(0.0, first - onset), said, fault.service, fault.begin, mark.calls)
        )
    return told


def outside(day: Day, every: list[Alarm]) -> list[Alarm]:
    """Alarms that began when no fault was near."""
    return [alarm for alarm in every if not day.inside(alarm.begin)]


def judge(day: Day, settings: Settings) -> list[Change]:
    """A day's changes."""
    replay = Replay(settings)
    return [change for call in day.calls for change in replay.add(call)] + replay.end()


def of_day(job: tuple[Path, int, Settings]) -> list[Alarm]:
    """What is found on one day of the data in a folder."""
    folder, number, settings = job
    return alarms(judge(load(folder)[number], settings))


def listed() -> list[list[Seen]]:
    """The committed list of what could be seen, by day."""
    days = json.loads(VISIBLE.read_text("utf-8"))
    return [[Seen(one["why"], _known(one["onset"]), one["calls"]) for one in day] for day in days]


def _known(value: float | None) -> float:
    return nan if value is None else value


def lines(told: list[Found], stray: dict[str, int], hours: float) -> list[str]:
    """As a table."""
    out = [
        f"{'system':18}{'fault':18}{'found':>10}{'delay p50':>11}{'p90':>7}{'from onset p50':>16}{'p90':>7}"
    ]
    groups = sorted({(one.system, one.kind) for one in told})
    groups += [(system, "") for system in sorted({one.system for one in told})] + [("", "")]
    for system, kind in groups:
        mine = [o for o in told if system in {"", o.system} and kind in {"", o.kind}]
        hit = [one for one in mine if one.found]
        delays, onsets = (
            [one.delay for one in hit] or [nan],
            [one.from_onset for one in hit] or [nan],
        )
        out.append(
            f"{system or 'all':18}{kind or 'all':18}{len(hit):5} of {len(mine):2}{median(delays):10.1f}"
            f"{share_of(delays, 0.9):8.1f}{median(onsets):15.1f}{share_of(onsets, 0.9):8.1f}"
        )
    out.append(f"alarms outside of faults in {hours:.1f} recorded hours: {stray}")
    out += [
        f"missed: {o.system} {o.kind} of {o.service} at {o.begin:.0f} s ({o.why}, {o.calls} calls)"
        for o in told
        if not o.found
    ]
    return out
