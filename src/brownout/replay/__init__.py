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
from brownout._core.judge import FALSE_ALARM_SECONDS
from brownout._core.outcome import CENSORED, OutcomeClass
from brownout._core.sketch import bucket
from brownout._core.target import OPERATIONS, OTHER, Operation
from brownout._core.value import Value
from brownout.replay.records import HEADER, OUTCOMES, Problem, Record, read, record

if TYPE_CHECKING:
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
_SUCCESS = OutcomeClass.SUCCESS
_UNKNOWN = OutcomeClass.UNKNOWN


class Settings(Value):
    """What a user sets: the same as of a Guard, and what is judged as one.

    `deadline` is that of a call, in seconds; `dead_band` what is not material, as (share, seconds);
    `false_alarm_every` the wanted seconds between two false alarms of one that is judged; `by` is
    "operation" (each operation of a target by itself) or "target".
    """

    deadline: float = inf
    dead_band: tuple[float, float] = DEAD_BAND
    false_alarm_every: float = FALSE_ALARM_SECONDS
    by: str = "operation"


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
    """The calls of one operation, as they come."""

    __slots__ = ("flying", "operation", "seen", "started", "state", "target", "told")

    def __init__(self, target: str, name: str, settings: Settings, now: float) -> None:
        self.target = target
        self.operation = Operation(
            name, settings.deadline, now, settings.dead_band, settings.false_alarm_every
        )
        self.flying: list[tuple[float, float, int]] = []  # end, start, class
        self.started = 0
        self.seen = now  # when it was last called
        self.told = now  # when it was last judged
        self.state: State | None = None

    def tick(self, now: float) -> bool:
        """Judge what is new; whether the state has changed."""
        if now - self.told < IDLE_SECONDS - 1e-9 and not self.started and not self.flying:
            return False
        flying = self.flying
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
        operation = self.operation
        operation.evidence.take(tick)
        operation.judged(tick)
        return operation.state is not self.state

    def gap(self, now: float) -> None:
        """Nothing is known of what comes, and what was in flight is not known to have waited."""
        self.flying.clear()
        self.operation.forget(now)
        self.started, self.told = 0, now


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
        self._lines: dict[tuple[str, str], _Line] = {}
        self._awake: dict[_Line, None] = {}
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
        last = max((call[0] for line in self._awake for call in line.flying), default=-inf)
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
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(*key, self.settings, self._now)
        if line not in self._awake:
            self._awake[line] = None
            line.told = max(line.told, self._now)
        heappush(line.flying, (start + told.duration_seconds, start, told.outcome))
        line.started += 1
        line.seen = start

    def _key(self, told: Record) -> tuple[str, str]:
        key = (told.target, told.operation if self.settings.by == "operation" else "")
        if key in self._lines:
            return key
        known = {target for target, _ in self._lines}
        if told.target not in known and len(known) >= MOST_TARGETS:
            return OTHER, OTHER
        if sum(target == told.target for target, _ in self._lines) >= OPERATIONS:
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
        ends = [line.flying[0][0] for line in self._awake if line.flying]
        last = max((line.seen for line in self._lines.values()), default=start)
        if min([start, *ends]) < max(self._now, last) + GAP_SECONDS:
            self._tick(self._now + TICK_SECONDS)
            return
        self._tick(self._now + TICK_SECONDS)  # what has ended by now is told
        for line in self._awake:
            line.gap(self._now)
            self._note(line)
        self._awake.clear()
        self._now = floor(start / TICK_SECONDS) * TICK_SECONDS
        for line in self._lines.values():
            line.told = self._now

    def _tick(self, now: float) -> None:
        self._now = now = round(now / TICK_SECONDS) * TICK_SECONDS
        asleep: list[_Line] = []
        for line in self._awake:
            if line.tick(now):
                self._note(line)
            if now - line.seen > FORGOTTEN_SECONDS and not line.flying:
                asleep.append(line)
        for line in asleep:
            del self._awake[line]

    def _note(self, line: _Line) -> None:
        operation, before = line.operation, line.state
        line.state = state = operation.state
        if state is before:
            return
        verdict = operation.verdict(line.target, None)
        onset = operation.judge.finding.onset if operation.judge.finding else None
        self._changes.append(
            Change(
                round(self._now, 3),
                line.target,
                operation.name,
                before,
                state,
                verdict.kind,
                verdict.extent,
                onset,
                verdict.because,
            )
        )
