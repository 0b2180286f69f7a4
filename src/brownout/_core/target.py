"""What is known of one target, shared by every guard of that name: its operations, evidence, judgement.

It is told the time, and never waits but for its own lock, which is held for arithmetic only.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from brownout._core.age import AGE, AGE_BAND, STALE, no_fresher
from brownout._core.baseline import DEAD_BAND, check_share
from brownout._core.because import ENOUGH_CALLS, Claim, Last, Verdict, judged
from brownout._core.breaker import CLOSED, Gate
from brownout._core.budget import Budget
from brownout._core.evidence import Evidence
from brownout._core.judge import FALSE_ALARM_SECONDS, Judge
from brownout._core.kept import Kept, checked
from brownout._core.late import STALLED_SECONDS, STALLED_SHARE, lost, own, without
from brownout._core.moment import in_order
from brownout._core.recent import Latest
from brownout._core.sketch import bucket
from brownout._core.state import State, worst
from brownout._core.usual import Usual

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from weakref import ReferenceType

    from brownout._core.cell import Tick
    from brownout._core.finding import Finding

FOLD_SECONDS = 0.1
REST_SECONDS = 1.0  # an operation in which nothing happens is folded as seldom as that
# A call that did not end well lets a fold come ahead of its time: so many at once, then one in so long, or
# until it is named, for every so many of them: so a fold takes no great part of what such calls take.
AHEAD = 20
AHEAD_SECONDS = 0.01
AHEAD_CALLS = 16
TOGETHER = 3  # but only once for so many calls in flight
POOL_SECONDS = 0.25  # so long a wait for our own pool, of one that still waits, is our own trouble
OPERATIONS = 32  # of one target; what goes over lands in "other"
OTHER = "other"
THREADS = 16  # more shards than these are looked through for threads that have ended


class Mutex(Protocol):
    """A lock, given by who may know threads."""

    def acquire(self, blocking: bool = True) -> bool: ...  # noqa: FBT001, FBT002 - threading.Lock's

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class Operation:
    """One kind of call of a target: its evidence, its usual, its judge."""

    __slots__ = (
        "_ahead", "_news", "_rested", "_rests", "aged", "due", "evidence", "gates", "judge", "known", "last",
        "latest", "name", "stream", "usual",
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
        self.known = False
        self.last: Last | None = None
        self._ahead = -inf
        self._news = 0
        self._rests = False
        self._rested = -inf
        # From `due` on a call must look twice: a fold is due, or a gate is not closed.
        self.due = -inf
        self.gates: list[ReferenceType[Gate]] = []

    @property
    def state(self) -> State | None:
        """What it is judged to be; None without evidence."""
        if self.finding is not None:
            return self.finding.state
        return State.HEALTHY if self.known else None

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
        finding = self._named(self.judge.told())
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
        self.due = -inf

    def fold(self, now: float) -> None:
        """Take in what is new, judge it, and learn from it if nothing is suspicious."""
        evidence, self._news = self.evidence, 0
        if self._rests:
            news = evidence.news
            if not news and now - evidence.at < REST_SECONDS:
                self._rested = now  # as if it had been folded: only time has passed
                return
            self.wake()
            self._rests = not news
            if not news:
                self.judged(evidence.rest(now))
                return
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
            self.learn(part, late=late)

    def learn(self, tick: Tick, *, late: bool = False) -> None:
        """Learn from a tick that has been judged, if nothing is suspicious; not if we were late ourselves."""
        if self.judge.finding is not None and not tick.ages and not self.evidence.settled:
            self.judge.lapse(tick.at)  # nobody has called for a whole window: no evidence
        # Half as many keep what was known: a target called at just that rate would flicker.
        enough = self.evidence.settled >= (ENOUGH_CALLS // 2 if self.known else ENOUGH_CALLS)
        # Nor is anything called HEALTHY for the first time while it looks ill.
        self.known = enough and (self.known or not self.judge.suspicious)
        ill = self.judge.finding is not None
        closed, self.evidence.closed = self.evidence.closed, None
        if late:
            self.usual.skip(closed)
        else:
            self.usual.learn(tick, closed, suspicious=self.judge.suspicious, ill=ill)
        self.judge.rebase(self.stream, self.usual.baseline, tick.at)
        if (ill or self.known) and (tick.ages or any(tick.classes)):
            self.last = Last(self.state, tick.at)


class Target:
    """What is known of one target, shared by every guard of that name."""

    __slots__ = (
        "_alive", "_mutex", "budget", "claim", "dead_band", "false_alarm_every", "kept", "name", "next_fold",
        "operations", "problem", "timeout",
    )  # fmt: skip

    def __init__(
        self, name: str, mutex: Callable[[], Mutex], alive: Callable[[], frozenset[int]]
    ) -> None:
        self.name = name
        self._alive = alive
        self.operations: dict[str, Operation] = {}
        self.budget = Budget(mutex())
        self.claim: Claim | None = None
        self.kept: dict[str, Kept] = {}  # by operation: what a predecessor knew to be usual
        self.timeout = inf
        self.dead_band = DEAD_BAND
        self.false_alarm_every = FALSE_ALARM_SECONDS
        self.next_fold = -inf
        self.problem: Exception | None = None
        self._mutex = mutex()

    def renew(self, mutex: Callable[[], Mutex], now: float) -> None:
        """After a fork: locks that no lost thread holds, and no evidence but the child's own.

        What is usual is kept: the child calls the same target.
        """
        self._mutex = mutex()
        self.budget.renew(mutex())
        self.claim, self.problem, self.next_fold = None, None, -inf
        for operation in self.operations.values():
            operation.forget(now)

    def operation(self, name: str, now: float) -> Operation:
        """The operation of that name; "other" when there are too many names."""
        found = self.operations.get(name)
        if found is not None:
            return found
        if len(self.operations) >= OPERATIONS:
            name = OTHER
        new = Operation(name, self.timeout, now, self.dead_band, self.false_alarm_every)
        if (kept := self.kept.get(name)) is not None:
            new.hear(kept, now)
        return self.operations.setdefault(name, new)

    def observe_age(self, name: str, age: float, thread: int, now: float) -> None:
        """Count how old an answer of an operation was: a second latency, with a usual of its own."""
        name = f"{name}{AGE}"
        found = self.operations.get(name)
        if found is None:
            if len(self.operations) >= OPERATIONS:
                name = f"{OTHER}{AGE}"
            new = Operation(name, inf, now, AGE_BAND, self.false_alarm_every, aged=True)
            if (kept := self.kept.get(name)) is not None:
                new.hear(kept, now)
            found = self.operations.setdefault(name, new)
        found.evidence.shard(thread).answered[bucket(age)] += 1
        if now >= self.next_fold:
            self.tick(now)

    def hear(self, operation: str, kept: Kept, now: float) -> bool:
        """Take over what a predecessor knew to be usual, now or when the operation is first called.

        Whether there was room for it. Raises ValueError for what no predecessor can have told.
        """
        checked(kept.told)
        with self._mutex:
            if len(self.kept) > OPERATIONS:
                return False
            self.kept[operation] = kept
            if (known := self.operations.get(operation)) is not None:
                known.hear(kept, now)
        return True

    def told(self) -> dict[str, dict[str, Any] | None]:
        """What is usual of each operation, for a successor; None where that is to be forgotten."""
        with self._mutex:
            known = [
                (name, one.usual.told(), one.usual.anew) for name, one in self.operations.items()
            ]
        return {name: told for name, told, anew in known if told is not None or anew}

    def relearn(self, now: float, operation: str | None, errors: float | None) -> None:
        """Forget what is usual, of one operation or of all. Raises ConfigurationError for no share."""
        check_share(self.name, errors)
        with self._mutex:
            for name, known in self.operations.items():
                if operation in {None, name}:
                    known.relearn(now, errors)
            for name in [name for name in self.kept if operation in {None, name}]:
                del self.kept[name]

    @property
    def calls(self) -> int:
        """First attempts ever admitted, over all operations."""
        every = list(self.operations.values())
        return sum(operation.evidence.calls for operation in every if not operation.aged)

    def tick(self, now: float, news: Operation | None = None) -> None:
        """Fold if the last fold is long enough ago and nobody else is folding.

        A call that did not end well is `news` of its operation, which is then folded ahead of its time.
        Never waits, and never raises: a fault of the judge is kept in `problem`, and calls go on.
        """
        if self._mutex.acquire(blocking=False):
            try:
                if now >= self.next_fold:
                    self._fold(now)
                elif news is not None and news.may_fold_ahead(now):
                    self._judge(news, now)
            except Exception as problem:
                self.problem = problem
            finally:
                self._mutex.release()

    def fold(self, now: float) -> None:
        """Fold now, for a reader; waits for a fold that is under way."""
        with self._mutex:
            self._fold(now)

    def _fold(self, now: float) -> None:
        self.next_fold = now + FOLD_SECONDS
        for operation in list(self.operations.values()):
            self._judge(operation, now)

    def _judge(self, operation: Operation, now: float) -> None:
        operation.fold(now)
        operation.due = self.next_fold if operation.calm else -inf
        if len(operation.evidence.shards) > THREADS:
            operation.evidence.retire(self._alive)

    def state(self, now: float) -> State | None:
        """The state alone, which costs less than a verdict."""
        with self._mutex:
            if now >= self.next_fold:
                self._fold(now)
            known = [operation.state for operation in list(self.operations.values())]
        return worst(known)

    def verdicts(self, now: float) -> list[Verdict]:
        """The verdict on each operation, the worst first, then the busiest."""
        with self._mutex:
            if now >= self.next_fold:
                self._fold(now)
            every = [op.verdict(self.name, self.claim) for op in self.operations.values()]
        return sorted(every, key=_rank)

    def verdict(self, now: float) -> Verdict:
        """The verdict on the target: that of its worst operation with evidence."""
        every = self.verdicts(now)
        if every:
            return every[0]
        because = "no evidence: it has not been called"
        claim = self.claim.ok if self.claim else None
        return Verdict(self.name, "", None, "", 0.0, because, (), (), now, now, claim)


def _rank(verdict: Verdict) -> tuple[int, float, str]:
    severity = -1 if verdict.state is None else verdict.state.severity
    return -severity, -verdict.number("calls"), verdict.operation
