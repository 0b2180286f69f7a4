"""Replay: a recorded stream of calls, judged as a guard would have judged it, faster than it happened.

    from brownout.replay import Replay, Settings, read
    replay = Replay(Settings(deadline=1.0))
    for record in read(Path("calls.csv.gz")):        # a row that is none is a Problem
        for change in replay.add(record):            # each change of a state, in order
            print(change.t_seconds, change.target, change.state, change.because)
    changes = replay.end()

The judge, and what it calls usual, are those of the live guard; time is that of the recording. A call
counts as in flight until it ended, and what it showed is known only then. Where nothing at all begins or
ends for `GAP_SECONDS`, the recording has a gap: that is no evidence, and never silence.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import floor, inf
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.baseline import DEAD_BAND
from brownout._core.cell import CLASSES, Tick
from brownout._core.joint import Joint
from brownout._core.judge import FALSE_ALARM_SECONDS
from brownout._core.outcome import CENSORED, OutcomeClass
from brownout._core.sketch import bucket
from brownout._core.target import OPERATIONS, OTHER
from brownout._core.value import Value
from brownout.replay.records import HEADER, OUTCOMES, Problem, Record, read, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout._core.operation import Operation
    from brownout._core.state import State

__all__ = [
    "HEADER",
    "OUTCOMES",
    "Change",
    "Problem",
    "Record",
    "Replay",
    "Settings",
    "read",
    "record",
]

TICK_SECONDS = 0.1  # as the live guard's
IDLE_SECONDS = 1.0  # where nothing happens, somebody looks so often
FORGOTTEN_SECONDS = 40.0  # after so long without a call nothing is known, or changes, any more
GAP_SECONDS = 30.0  # the guard's window: in so long without a call it forgets as well
UNSORTED_SECONDS = 60.0
MOST_AHEAD = 2_000_000  # records that are put in order at one time
MOST_TARGETS = 1024
MOST_LINES = 256  # observers and operations that are judged as one
_SUCCESS = OutcomeClass.SUCCESS
_UNKNOWN = OutcomeClass.UNKNOWN


class Settings(Value):
    """What a user sets: the same as of a Guard, and what is judged as one.

    `deadline` is that of a call, in seconds; `dead_band` what is not material, the larger of (share,
    seconds); `false_alarm_every` the wanted seconds between two false alarms of one that is judged; `by` is
    "target", or "operation" for each operation of a target by itself.
    """

    deadline: float = inf
    dead_band: tuple[float, float] = DEAD_BAND
    false_alarm_every: float = FALSE_ALARM_SECONDS
    by: str = "target"


class Change(NamedTuple):
    """A change of a state: `t_seconds` is when it was named, `onset_seconds` when it began (None: healthy).

    Both are in the recording's own time. A state is None without evidence.
    """

    t_seconds: float
    target: str
    operation: str
    before: State | None
    state: State | None
    kind: str
    extent: float
    onset_seconds: float | None
    because: str


class _Line:
    """The calls of one observer at one operation, as they come."""

    __slots__ = ("flying", "operation", "seen", "started", "told")

    def __init__(self, operation: Operation, now: float) -> None:
        self.operation = operation
        self.flying: list[tuple[float, float, int]] = []  # end, start, class
        self.started = 0
        self.seen = now  # when it was last called
        self.told = now  # when it was last judged

    def tick(self, now: float) -> Tick | None:
        """What is new; None if nothing is, and somebody has looked not long ago."""
        flying = self.flying
        if not self.started and not flying and now - self.told < IDLE_SECONDS - 1e-9:
            return None
        classes = [0] * CLASSES
        answered: dict[int, int] = {}
        censored: dict[int, int] = {}
        while flying and flying[0][0] <= now:
            end, start, class_ = heappop(flying)
            classes[class_] += 1
            if class_ == _SUCCESS:
                at = bucket(end - start)
                answered[at] = answered.get(at, 0) + 1
            elif class_ in CENSORED:
                at = bucket(end - start)
                censored[at] = censored.get(at, 0) + 1
        ages = [bucket(now - one[1]) for one in flying]
        tick = Tick(
            now,
            now - self.told,
            self.started,
            classes,
            sorted(answered.items()),
            sorted(censored.items()),
            ages,
            0,
            0.0,
        )
        self.started, self.told = 0, now
        self.operation.evidence.take(tick)
        return tick


class _Case:
    """What is judged as one, and its lines by (observer, operation)."""

    __slots__ = ("awake", "joint", "lines", "settings", "state", "target")

    def __init__(self, target: str, name: str, settings: Settings, now: float) -> None:
        self.target = target
        self.settings = settings
        self.joint = Joint(name, now, settings.false_alarm_every)
        self.lines: dict[tuple[str, str], _Line] = {}
        self.awake: dict[_Line, None] = {}
        self.state: State | None = None

    def line(self, observer: str, operation: str, now: float) -> _Line:
        """The line of an observer and an operation, awake."""
        key = (observer, operation)
        line = self.lines.get(key)
        if line is None:
            if len(self.lines) >= MOST_LINES:
                key = (OTHER, OTHER)
            labels: tuple[tuple[str, str], ...] = (("observer", key[0]),)
            if self.settings.by == "target":
                labels = (("operation", key[1]), *labels)
            member = self.joint.member(self.settings.deadline, now, self.settings.dead_band, labels)
            line = self.lines.setdefault(key, _Line(member, now))
        if line not in self.awake:
            self.awake[line] = None
            line.told = max(line.told, now)
        return line

    def tick(self, now: float) -> bool:
        """Judge what is new; whether the state has changed."""
        news = [(line.operation, tick) for line in self.awake if (tick := line.tick(now))]
        if not news:
            return False
        self.joint.judged(news)
        over = [
            line for line in self.awake if now - line.seen > FORGOTTEN_SECONDS and not line.flying
        ]
        for line in over:
            del self.awake[line]
        return self.joint.state is not self.state

    def gap(self, now: float) -> None:
        """Nothing is known of what comes, and what was in flight is not known to have waited."""
        self.joint.forget(now)
        for line in self.lines.values():
            line.flying.clear()
            line.started, line.told = 0, now
        self.awake.clear()


class Replay:
    """Judges recorded calls, which may be up to 60 s out of order.

    `add` and `end` return the changes that have come to light, in order. `problems` counts the records
    that came too late to be put in order; they are left out.
    """

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - an immutable value
        self.settings = settings
        self.late = 0
        self._ahead: list[tuple[float, int, Record]] = []
        self._number = 0
        self._newest = -inf
        self._taken = -inf  # up to here all is in order
        self._now = -inf  # the last tick
        self._cases: dict[tuple[str, str], _Case] = {}
        self._awake: dict[_Case, None] = {}
        self._latest = -inf  # start
        self._changes: list[Change] = []

    def add(self, told: Record) -> list[Change]:
        """Take in a record; the changes up to 60 s before the newest one, as far as they are new."""
        if told.start_seconds < self._taken:
            self.late += 1
            return []
        self._number += 1
        heappush(self._ahead, (told.start_seconds, self._number, told))
        self._newest = max(self._newest, told.start_seconds)
        while self._ahead and (
            self._ahead[0][0] < self._newest - UNSORTED_SECONDS or len(self._ahead) > MOST_AHEAD
        ):
            self._take(heappop(self._ahead)[2])
        return self._told()

    def end(self) -> list[Change]:
        """No more records: the changes that are left, until the last call has ended."""
        while self._ahead:
            self._take(heappop(self._ahead)[2])
        last = max((call[0] for line in self._flying() for call in line.flying), default=-inf)
        while self._now < last:
            self._tick(self._now + TICK_SECONDS)
        return self._told()

    def _told(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes

    def _take(self, told: Record) -> None:
        start = told.start_seconds
        self._taken = start
        if self._now == -inf:
            self._now = floor(start / TICK_SECONDS) * TICK_SECONDS
        self._until(start)
        key = self._key(told)
        case = self._cases.get(key)
        if case is None:
            case = self._cases[key] = _Case(*key, self.settings, self._now)
        line = case.line(told.observer, told.operation, self._now)
        self._awake[case] = None
        heappush(line.flying, (start + told.duration_seconds, start, told.outcome))
        line.started += 1
        line.seen = self._latest = start

    def _flying(self) -> Iterator[_Line]:
        return (line for case in self._awake for line in case.awake if line.flying)

    def _key(self, told: Record) -> tuple[str, str]:
        key = (told.target, told.operation if self.settings.by == "operation" else "")
        if key in self._cases:
            return key
        known = {target for target, _ in self._cases}
        if told.target not in known and len(known) >= MOST_TARGETS:
            return OTHER, OTHER
        if sum(target == told.target for target, _ in self._cases) >= OPERATIONS:
            return told.target, OTHER
        return key

    def _until(self, start: float) -> None:
        """Tick up to the start of a call. Where nothing happens for long, time is left out."""
        while start > self._now + TICK_SECONDS:
            if start > self._now + GAP_SECONDS:
                self._leap(start)
            else:
                self._tick(self._now + TICK_SECONDS)

    def _leap(self, start: float) -> None:
        """A tick, or over a gap: nothing begins before `start`; what is in flight may end before."""
        ends = [line.flying[0][0] for line in self._flying()]
        if min([start, *ends]) < max(self._now, self._latest) + GAP_SECONDS:
            self._tick(self._now + TICK_SECONDS)
            return
        self._tick(self._now + TICK_SECONDS)  # what has ended by now is told
        for case in self._cases.values():
            case.gap(self._now)
            self._note(case)
        self._awake.clear()
        self._now = floor(start / TICK_SECONDS) * TICK_SECONDS

    def _tick(self, now: float) -> None:
        self._now = now = round(now / TICK_SECONDS) * TICK_SECONDS
        asleep: list[_Case] = []
        for case in self._awake:
            if case.tick(now):
                self._note(case)
            if not case.awake:
                asleep.append(case)
        for case in asleep:
            del self._awake[case]

    def _note(self, case: _Case) -> None:
        joint, before = case.joint, case.state
        case.state = state = joint.state
        if state is before:
            return
        _, verdict = joint.verdict(case.target)
        onset = joint.judge.finding.onset if joint.judge.finding else None
        self._changes.append(
            Change(
                round(self._now, 3),
                case.target,
                joint.name,
                before,
                state,
                verdict.kind,
                verdict.extent,
                None if onset is None else round(onset, 3),
                verdict.because,
            )
        )
