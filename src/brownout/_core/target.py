"""What is known of one target, shared by every guard of that name: its operations, evidence, judgement.

It is told the time, and never waits but for its own lock, which is held for arithmetic only.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from brownout._core.age import AGE, AGE_BAND
from brownout._core.baseline import DEAD_BAND, check_share
from brownout._core.because import Claim, Verdict
from brownout._core.budget import Budget
from brownout._core.judge import FALSE_ALARM_SECONDS
from brownout._core.kept import Kept, checked
from brownout._core.operation import Operation
from brownout._core.sketch import bucket
from brownout._core.state import State, worst
from brownout._core.whole import Whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


FOLD_SECONDS = 0.1
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


class Target:
    """What is known of one target, shared by every guard of that name."""

    __slots__ = (
        "_alive", "_mutex", "budget", "claim", "dead_band", "false_alarm_every", "kept", "name", "next_fold",
        "operations", "problem", "timeout", "whole",
    )  # fmt: skip

    def __init__(
        self, name: str, mutex: Callable[[], Mutex], alive: Callable[[], frozenset[int]]
    ) -> None:
        self.name = name
        self._alive = alive
        self.operations: dict[str, Operation] = {}
        self.whole = Whole()
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
        self.whole.forget()

    def operation(self, name: str, now: float) -> Operation:
        """The operation of that name; "other" when there are too many names."""
        found = self.operations.get(name)
        if found is not None:
            return found
        if len(self.operations) >= OPERATIONS:
            name = OTHER
        new = Operation(name, self.timeout, now, self.dead_band, self.false_alarm_every)
        new.whole = self.whole
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
            self.whole.forget()
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
        operations = list(self.operations.values())
        for operation in operations:
            self._judge(operation, now)
        if len(operations) > 1:
            self.whole.judge(operations, now, self.false_alarm_every)

    def _judge(self, operation: Operation, now: float) -> None:
        tick = operation.fold(now)
        if tick is not None and len(self.operations) > 1:
            self.whole.hear(operation, tick)
        operation.due = self.next_fold if operation.calm else -inf
        if len(operation.evidence.shards) > THREADS:
            operation.evidence.retire(self._alive)

    def state(self, now: float) -> State | None:
        """The state alone, which costs less than a verdict."""
        with self._mutex:
            if now >= self.next_fold:
                self._fold(now)
            known = [operation.state for operation in list(self.operations.values())]
        return worst([*known, self.whole.state])

    def verdicts(self, now: float) -> list[Verdict]:
        """The verdict on each operation, the worst first, then the busiest."""
        with self._mutex:
            if now >= self.next_fold:
                self._fold(now)
            every = [op.verdict(self.name, self.claim) for op in self.operations.values()]
            every = self.whole.verdict(self.name, self.claim, every)
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
