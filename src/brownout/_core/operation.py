"""One kind of call of a target: its evidence, its usual, its judge, and its state."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from brownout._core.age import STALE, no_fresher
from brownout._core.baseline import DEAD_BAND
from brownout._core.because import ENOUGH_CALLS, Claim, Last, Verdict, judged
from brownout._core.breaker import CLOSED, Gate
from brownout._core.evidence import Evidence
from brownout._core.judge import FALSE_ALARM_SECONDS, Judge
from brownout._core.late import STALLED_SECONDS, STALLED_SHARE, lost, own, without
from brownout._core.moment import in_order
from brownout._core.recent import Latest
from brownout._core.state import State, moved
from brownout._core.usual import Usual

if TYPE_CHECKING:
    from weakref import ReferenceType

    from brownout._core.cell import Tick
    from brownout._core.finding import Finding
    from brownout._core.kept import Kept
    from brownout._core.whole import Whole

REST_SECONDS = 1.0  # an operation in which nothing happens is folded as seldom as that
# A call that did not end well lets a fold come ahead of its time: so many at once, then one in so long, or
# until it is named, for every so many of them: so a fold takes no great part of what such calls take.
AHEAD = 20
AHEAD_SECONDS = 0.01
AHEAD_CALLS = 16
TOGETHER = 3  # but only once for so many calls in flight
_WELL = (None, State.HEALTHY)
_KNOWN, _FEW = ("known", State.HEALTHY), ("few", None)


class Operation:
    """One kind of call of a target: its evidence, its usual, its judge."""

    __slots__ = (
        "_ahead", "_news", "_rested", "_rests", "aged", "due", "evidence", "gates", "judge", "known", "last",
        "latest", "name", "state", "stream", "usual", "whole",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        timeout: float,
        now: float,
        dead_band: tuple[float, float] = DEAD_BAND,
        false_alarm_every: float = FALSE_ALARM_SECONDS,
        judge: Judge | None = None,
        labels: tuple[tuple[str, str], ...] = (),
        *,
        aged: bool = False,
    ) -> None:
        self.name = name
        self.aged = aged  # what is counted is how old answers were, not how long they took
        self.evidence = Evidence(now)
        self.usual = Usual(timeout, dead_band)
        self.judge = judge or Judge(now, false_alarm_every)
        self.stream = self.judge.join(self.usual.baseline, now, labels)
        self.latest = Latest()
        self.whole: Whole | None = None  # of its target, where it is judged with others too
        self.known = False
        self.state: State | None = None  # what it is judged to be; None without evidence
        self.last: Last | None = None
        self._ahead = -inf
        self._news = 0
        self._rests = False
        self._rested = -inf
        # From `due` on a call must look twice: a fold is due, or a gate is not closed.
        self.due = -inf
        self.gates: list[ReferenceType[Gate]] = []

    @property
    def finding(self) -> Finding | None:
        """What the judge found; of ages it is always the same: what is read is stale."""
        return self._named(self.judge.finding)

    def _named(self, found: Finding | None) -> Finding | None:
        if found is None or not self.aged:
            return found
        return found._replace(state=State.DEGRADED, kind=STALE, load="")

    @property
    def calm(self) -> bool:
        """Whether every gate before it is closed."""
        gates = [reference() for reference in list(self.gates)]
        return all(gate is None or gate.phase is CLOSED for gate in gates)

    def may_fold_ahead(self, now: float) -> bool:
        """Another call did not end well: whether a fold may come ahead of its time.

        Once for some of those that were in flight together, and not too often.
        """
        self._news += 1
        if self._news * TOGETHER <= self.evidence.in_flight:
            return False
        ahead = max(self._ahead, now - AHEAD_SECONDS * AHEAD) + AHEAD_SECONDS
        if ahead <= now:
            self._ahead = ahead
            return True
        return self._news >= AHEAD_CALLS and self.judge.finding is None

    def verdict(self, target: str, claim: Claim | None) -> Verdict:
        """The state with its reason."""
        self.wake()
        finding = self._named(self.judge.told(self.evidence.labelled))
        usual = self.usual
        base = usual.baseline._replace(chronic=usual.chronic, kept_at=usual.kept_at)
        rows, now = self.judge.recent(), self.evidence.at
        verdict = judged(
            target, self.name, self.evidence, base, finding, self.state, rows, claim, self.last,
            usual.hazard() if finding else (),
        )  # fmt: skip
        trouble = own(list(self.evidence.shards.values()), now)
        return verdict.__replace__(recent=self.latest.told(now)).suspecting(trouble)

    def relearn(self, now: float, errors: float | None) -> None:
        """Forget what is usual, and what was found against it."""
        self.usual.relearn(errors)
        self.judge.lapse(now)
        self.judge.rebase(self.stream, self.usual.baseline, now)

    def hear(self, kept: Kept, now: float) -> None:
        """Take over what a predecessor knew to be usual, if that is news here."""
        if self.usual.hear(kept.told, kept.at, now):
            self.judge.rebase(self.stream, self.usual.baseline, now)

    def forget(self, now: float) -> None:
        """Forget all but what is usual, after a fork."""
        self._rests = False
        self._rested = -inf
        self.evidence.forget(now)
        self.judge = Judge(now, self.judge.every)
        self.stream = self.judge.join(self.usual.baseline, now)
        self.latest = Latest()
        self.known = False
        self._move("forgotten", None)
        self.due = -inf

    def fold(self, now: float) -> Tick | None:
        """Take in what is new, judge it, and learn from it if nothing is suspicious; the tick, if any."""
        evidence, self._news = self.evidence, 0
        if self._rests:
            news = evidence.news
            if not news and now - evidence.at < REST_SECONDS:
                self._rested = now  # as if it had been folded: only time has passed
                return None
            self.wake()
            self._rests = not news
            if not news:
                tick = evidence.rest(now)
                self.judged(tick)
                return tick
        before = evidence.at
        tick = evidence.fold(now)
        stalled = lost(list(evidence.shards.values()), before, now)
        if stalled > STALLED_SHARE * (now - before):  # it says more of us than of the target
            tick = without(tick, self.usual.baseline)
        self.latest.add(tick, self.usual.baseline)
        self.judged(tick, late=stalled > STALLED_SECONDS)
        finding = self.judge.finding
        self._rests = finding is None and tick.idle and self.judge.rests
        for reference in list(self.gates):
            gate = reference()
            if gate is not None and finding is not None:
                gate.observe(finding.state, finding.supported_at, now)
        return tick

    def _move(self, event: str, after: State | None) -> None:
        if after is not self.state:
            self.state = moved(self.state, event, after)

    def _follow(self) -> None:
        """What the judge found is the state; where it finds nothing, what is known is."""
        finding, ill = self.finding, self.state not in _WELL
        if finding is not None:
            self._move("renamed" if ill else "alarm", finding.state)
        elif ill:
            self._move("recovered", State.HEALTHY if self.known else None)

    def wake(self) -> None:
        """Take in the time in which nothing happened."""
        if self._rested > self.evidence.at:
            self.judged(self.evidence.rest(self._rested))

    def judged(self, tick: Tick, *, late: bool = False) -> None:
        """Judge a tick that is in the window, and learn from it if nothing is suspicious."""
        if tick.idle and self.judge.rest(tick):
            self.learn(tick)
            return
        for part in in_order(tick):
            seen = no_fresher(part, self.usual.baseline) if self.aged else part
            self.judge.step([(self.stream, seen)], tick.together)
            self._follow()
            if self.judge.finding is not None and not tick.ages and not self.evidence.settled:
                self.judge.lapse(tick.at)  # nobody has called for a whole window: no evidence
                self._move("lapsed", None)
            self.learn(part, late=late)

    def learn(self, tick: Tick, *, late: bool = False) -> None:
        """Learn from a tick that has been judged, if nothing is suspicious; not if we were late ourselves."""
        # Half as many keep what was known: a target called at just that rate would flicker.
        enough = self.evidence.settled >= (ENOUGH_CALLS // 2 if self.known else ENOUGH_CALLS)
        # Nor is anything called HEALTHY for the first time while it looks ill.
        self.known = enough and (self.known or not self.judge.suspicious)
        ill = self.judge.finding is not None
        if not ill:
            self._move(*_KNOWN if self.known else _FEW)
        closed, self.evidence.closed = self.evidence.closed, None
        if late:
            self.usual.skip(closed)
        else:
            suspected = self.whole is not None and self.whole.suspects(self)
            suspicious = self.judge.suspicious or suspected
            self.usual.learn(tick, closed, suspicious=suspicious, ill=ill)
        self.judge.rebase(self.stream, self.usual.baseline, tick.at)
        if (ill or self.known) and (tick.ages or any(tick.classes)):
            self.last = Last(self.state, tick.at)
