"""The whole of a target: its operations that are seldom called, judged as one beside each by itself.

An operation that is called once a second takes long to tell what is wrong; five of them together do not. What
they show together is told where it is worse than what each of them shows alone.
"""

from __future__ import annotations

from math import inf
from operator import add
from typing import TYPE_CHECKING

from brownout._core.cell import CLASSES, Tick
from brownout._core.joint import Joint
from brownout._core.modes import COLUMNS
from brownout._core.sentence import deciding, right

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brownout._core.because import Claim, Verdict
    from brownout._core.operation import Operation
    from brownout._core.state import State

SELDOM = 10.0  # usual calls a second: whoever is called more often is judged soon enough alone,
OFTEN = 20.0  # and is left out from here on
EXPLAINED_SECONDS = 300.0  # each of them has shown alone by then what it has to show


class Whole:
    """What is judged as one: at least two operations that are seldom called."""

    __slots__ = ("_at", "_joint", "_news")

    def __init__(self) -> None:
        self._at = inf
        self._joint: Joint | None = None
        self._news: dict[Operation, list[Tick]] = {}

    @property
    def state(self) -> State | None:
        """What it is judged to be; None without evidence."""
        return None if self._joint is None else self._joint.state

    @property
    def suspicious(self) -> bool:
        """Whether some evidence has been gathered: such time is not learned as usual."""
        return self._joint is not None and self._joint.judge.suspicious

    @property
    def ill(self) -> bool:
        """Whether something was found."""
        return self._joint is not None and self._joint.judge.finding is not None

    def suspects(self, operation: Operation) -> bool:
        """Whether it suspects an operation, so that nothing is learned of it.

        Not for ever: what one of them has long shown alone explains it.
        """
        if not self.suspicious or self._joint is None or operation not in self._joint.streams:
            return False
        found = [one.judge.finding for one in self._joint.streams]
        return not any(one and one.onset < self._at - EXPLAINED_SECONDS for one in found)

    def forget(self) -> None:
        """Forget everything."""
        self._at, self._joint = inf, None
        self._news.clear()

    def hear(self, operation: Operation, tick: Tick) -> None:
        """What is new of an operation, which it has judged itself."""
        self._news.setdefault(operation, []).append(tick)

    def judge(self, operations: Iterable[Operation], now: float, false_alarm_every: float) -> None:
        """Judge what was heard of these operations since the last time."""
        known = [] if self._joint is None else list(self._joint.streams)
        some = [one for one in operations if _belongs(one, OFTEN if one in known else SELDOM)]
        if any(one not in some for one in known):
            self._joint = None
        if len(some) >= 2:
            if self._joint is None:
                self._joint = Joint("", now, false_alarm_every)
            self._step(self._joint, some, now)
        self._at = now
        self._news.clear()

    def _step(self, joint: Joint, some: list[Operation], now: float) -> None:
        for operation in some:
            joint.take(operation, now)
        heard = [(one, self._news[one]) for one in some if one in self._news]
        news = [(one, _joined(ticks, now, max(0.0, now - self._at))) for one, ticks in heard]
        news = [(one, tick) for one, tick in news if not tick.idle] or news[:1]
        if news:
            joint.step(news)

    def verdict(self, target: str, claim: Claim | None, told: list[Verdict]) -> list[Verdict]:
        """The verdicts on operations: one of them says what they show together, where that is worse."""
        joint = self._joint
        if joint is None or joint.state is None:
            return told
        names = {operation.name for operation in joint.streams}
        every = [one for one in told if one.operation in names]
        if any(
            one.state is not None and one.state.severity >= joint.state.severity for one in every
        ):
            return told
        lead, whole = joint.verdict(target, claim)
        if not self.ill:
            whole = whole.__replace__(because=right(deciding(joint.judge.recent(), [0] * COLUMNS)))
        return [_led(one, whole) if one.operation == lead.name else one for one in told]


def _belongs(operation: Operation, most: float) -> bool:
    return not operation.aged and operation.usual.baseline.rate < most


def _joined(ticks: list[Tick], now: float, seconds: float) -> Tick:
    """Ticks that came one after the other as one."""
    classes = [0] * CLASSES
    for tick in ticks:
        classes = list(map(add, classes, tick.classes))
    last = ticks[-1]
    return Tick(
        now,
        seconds,
        sum(tick.started for tick in ticks),
        classes,
        [pair for tick in ticks for pair in tick.answered],
        [pair for tick in ticks for pair in tick.censored],
        last.ages,
        last.queued,
        sum(tick.waited for tick in ticks),
    )


def _led(one: Verdict, whole: Verdict) -> Verdict:
    """The verdict on the operation that shows most of it, which now says what all of them show."""
    return one.__replace__(
        state=whole.state,
        kind=whole.kind,
        extent=whole.extent,
        because=f"its operations together: {whole.because}",
        since=whole.since,
        own="",
    ).suspecting(one.own)
