"""The one order: deadline, breaker, limit, attempt, settle, recover.

`Target` is what all guards of one name share: the evidence of its operations, what is usual, the
judgement, the budget. `Core` is one guard's own: its policy, its gate, its permits. Both are told the
time, and neither ever waits.
"""

from __future__ import annotations

from math import inf, log2
from typing import TYPE_CHECKING, Protocol
from weakref import ReferenceType, ref

from brownout._core.because import ENOUGH_CALLS, Claim, Verdict, judged
from brownout._core.breaker import CLOSED, Gate
from brownout._core.budget import Budget
from brownout._core.evidence import Attempt, Evidence
from brownout._core.judge import Judge
from brownout._core.limit import Limit
from brownout._core.outcome import Certainty, OutcomeClass, Shown
from brownout._core.sketch import BUCKETS, OFFSET, PER_OCTAVE, TINY
from brownout._core.state import State, worst
from brownout._core.usual import Usual
from brownout.errors import BreakerOpen, DeadlinePassed, LimitReached, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from brownout._core.policy import Policy

FOLD_SECONDS = 0.1
OPERATIONS = 32  # of one target; what goes over lands in "other"
OTHER = "other"
THREADS = 16  # more shards than these are looked through for threads that have ended
_SUCCESS = OutcomeClass.SUCCESS
_NEVER = (OutcomeClass.LOCAL, OutcomeClass.CANCELLED, OutcomeClass.SHORT)


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

    __slots__ = ("due", "evidence", "gates", "judge", "known", "name", "usual")

    def __init__(self, name: str, timeout: float, now: float) -> None:
        self.name = name
        self.evidence = Evidence(now)
        self.usual = Usual(timeout)
        self.judge = Judge(self.usual.baseline, now)
        self.known = False
        self.due = (
            -inf
        )  # from when on a call must look twice: a fold is due, or a gate is not closed
        self.gates: list[
            ReferenceType[Gate]
        ] = []  # of every guard that calls it; gone with the guard

    @property
    def state(self) -> State | None:
        """What it is judged to be; None without evidence."""
        if self.judge.finding is not None:
            return self.judge.finding.state
        return State.HEALTHY if self.known else None

    @property
    def calm(self) -> bool:
        """Whether every gate before it is closed."""
        gates = [reference() for reference in list(self.gates)]
        return all(gate is None or gate.phase is CLOSED for gate in gates)

    def verdict(self, target: str, claim: Claim | None) -> Verdict:
        """The state with its reason."""
        finding, base = self.judge.finding, self.usual.baseline
        rows = self.judge.recent()
        return judged(target, self.name, self.evidence, base, finding, self.state, rows, claim)

    def forget(self, now: float) -> None:
        """Forget all but what is usual, after a fork."""
        self.evidence.forget(now)
        self.judge = Judge(self.usual.baseline, now)
        self.known = False
        self.due = -inf

    def fold(self, now: float) -> None:
        """Take in what is new, judge it, and learn from it if nothing is suspicious."""
        tick = self.evidence.fold(now)
        self.judge.step(tick)
        if self.judge.finding is not None and not tick.ages and not self.evidence.settled:
            self.judge.lapse(now)  # nobody has called for a whole window: no evidence
        # Half as many keep what was known: a target called at just that rate would flicker.
        enough = self.evidence.settled >= (ENOUGH_CALLS // 2 if self.known else ENOUGH_CALLS)
        # Nor is anything called HEALTHY for the first time while it looks ill.
        self.known = enough and (self.known or not self.judge.suspicious)
        self.usual.learn(tick, suspicious=self.judge.suspicious)
        self.judge.rebase(self.usual.baseline, now)
        finding = self.judge.finding
        for reference in list(self.gates):
            gate = reference()
            if gate is None:
                self.gates.remove(reference)
            elif finding is not None:
                gate.observe(finding.state, finding.supported_at, now)


class Target:
    """What is known of one target, shared by every guard of that name."""

    __slots__ = (
        "_alive", "_mutex", "budget", "claim", "name", "next_fold", "operations", "problem",
        "timeout",
    )  # fmt: skip

    def __init__(
        self, name: str, mutex: Callable[[], Mutex], alive: Callable[[], frozenset[int]]
    ) -> None:
        self.name = name
        self._alive = alive
        self.operations: dict[str, Operation] = {}
        self.budget = Budget(mutex())
        self.claim: Claim | None = None
        self.timeout = inf
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
        return self.operations.setdefault(name, Operation(name, self.timeout, now))

    @property
    def calls(self) -> int:
        """First attempts ever admitted, over all operations."""
        return sum(operation.evidence.calls for operation in list(self.operations.values()))

    def tick(self, now: float) -> None:
        """Fold if the last fold is long enough ago and nobody else is folding.

        Never waits, and never raises: a fault of the judge is kept in `problem`, and calls go on.
        """
        if self._mutex.acquire(blocking=False):
            try:
                if now >= self.next_fold:
                    self._fold(now)
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
            alive = self._alive() if len(operation.evidence.shards) > THREADS else None
            operation.fold(now)
            operation.due = self.next_fold if operation.calm else -inf
            if alive is not None:
                operation.evidence.retire(alive, now)

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


class Core:
    """One guard's decisions: may an attempt start, what did it show, may it be tried again."""

    __slots__ = (
        "__weakref__", "_chance", "_mutex", "_timeout", "gates", "limit", "policy", "target",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        target: Target,
        mutex: Callable[[], Mutex],
        chance: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.target = target
        self.limit = Limit(policy.limit) if policy.limit else None
        self.gates: dict[Operation, Gate] = {}
        self._mutex = mutex
        self._chance = chance
        self._timeout = policy.timeout

    def renew(self) -> None:
        """After a fork: every permit is free and every gate closed; what is out is the parent's."""
        if self.limit is not None:
            self.limit.renew()
        for gate in self.gates.values():
            gate.renew(self._mutex())

    def gate(self, operation: Operation) -> Gate | None:
        """This guard's gate before an operation; None without a breaker.

        One an operation: if only one kind of call hangs, the others go on.
        """
        gate = self.gates.get(operation)
        if gate is not None or self.policy.breaker is None:
            return gate
        new = Gate(self.policy.breaker, self._mutex(), self._chance)
        gate = self.gates.setdefault(operation, new)
        if gate is new:
            operation.gates.append(ref(new))
        return gate

    def admit(
        self, operation: Operation, thread: int, now: float, deadline: float, *, first: bool = True
    ) -> Attempt | Refused:
        """An attempt that may start now, or the refusal.

        `thread` names the shard; `deadline` is the call's; only `first` attempts earn budget.
        """
        probe: tuple[Gate, int] | None = None
        if now >= operation.due:
            looked = self._look(operation, now, deadline)
            if isinstance(looked, Refused):
                return looked
            probe = looked
        elif now >= deadline:
            return self._passed()
        if self.limit is not None:
            try:
                self.limit.free.pop()
            except IndexError:
                if probe is not None:
                    gate, lease = probe
                    gate.give_back(lease)
                return self._full(self.limit)
        shard = operation.evidence.shards.get(thread) or operation.evidence.shard(thread)
        attempt = Attempt(shard, now, now + self._timeout)
        if deadline < attempt.deadline:
            attempt.deadline = deadline
            attempt.inherited = True
        if probe is not None:
            attempt.probe = probe
        if not first:
            shard.repeats += 1
        shard.pending[attempt] = None
        return attempt

    def _look(
        self, operation: Operation, now: float, deadline: float
    ) -> tuple[Gate, int] | Refused | None:
        """What not every call need look at: the fold, and a gate that is not closed."""
        if now >= self.target.next_fold:
            self.target.tick(now)
        if now >= deadline:
            return self._passed()
        gate = self.gates.get(operation) or self.gate(operation)
        if gate is None or gate.phase is CLOSED:
            return None
        admitted, lease = gate.admit(now)
        if not admitted:
            return self._open(operation, gate, now)
        return None if lease is None else (gate, lease)

    def succeed(self, operation: Operation, attempt: Attempt, now: float) -> bool:
        """Settle an attempt that ended well; False if it had been settled before."""
        shard = attempt.shard
        # As Shard.settle has it: every call that goes well pays for this, and a call within a call costs.
        try:
            del shard.pending[attempt]
        except KeyError:
            return False
        seconds = now - attempt.began - attempt.waited_seconds
        index = int(log2(seconds) * PER_OCTAVE + OFFSET) if seconds > TINY else 0
        shard.answered[index if index < BUCKETS else BUCKETS - 1] += 1
        if attempt.waited_seconds:
            shard.waited += attempt.waited_seconds
        if self.limit is not None:
            self.limit.free.append(None)
        if now >= operation.due:
            self._after(attempt, _SUCCESS, now)
        return True

    def settle(self, attempt: Attempt, class_: OutcomeClass, now: float) -> bool:
        """Count what an attempt showed, once; False if it had been settled before."""
        if not attempt.shard.settle(attempt, class_, now):
            return False
        if self.limit is not None:
            self.limit.give()
        self._after(attempt, class_, now)
        return True

    def _after(self, attempt: Attempt, class_: OutcomeClass, now: float) -> None:
        if attempt.probe is not None:
            gate, lease = attempt.probe
            gate.settle(lease, class_, now)
        if now >= self.target.next_fold:
            self.target.tick(now)

    def may_retry(
        self, shown: Shown, tried: int, now: float, deadline: float, *, idempotent: bool
    ) -> float | None:
        """Seconds to wait before another attempt; None if there may be none."""
        retry = self.policy.retry
        if retry is None or tried >= retry.attempts or shown.class_ in _NEVER:
            return None
        if shown.certainty is Certainty.ANSWERED:
            return None
        if shown.certainty is Certainty.UNKNOWN and not idempotent:
            return None
        ceiling = min(retry.backoff * 2.0 ** (tried - 1), retry.backoff_most)
        if (shown.retry_after or 0.0) > retry.backoff_most:
            return None  # so long it asks to be left alone: the answer is worth more than the wait
        wait = max(ceiling * (0.5 + 0.5 * self._chance()), shown.retry_after or 0.0)
        if now + wait >= deadline or not self.target.budget.spend(self.target.calls, retry.budget):
            return None
        return wait

    def _state(self) -> State | None:
        findings = [operation.judge.finding for operation in list(self.target.operations.values())]
        states = [finding.state for finding in findings if finding is not None]
        return max(states, key=lambda state: state.severity, default=None)

    def _passed(self) -> Refused:
        name = self.target.name
        message = (
            f"{name}: not sent, because the deadline has passed;"
            " give the call more time, or do less before it"
        )
        return DeadlinePassed(message, target=name, state=self._state())

    def _open(self, operation: Operation, gate: Gate, now: float) -> Refused:
        name, state, after = self.target.name, operation.state, gate.retry_after(now)
        what = f"{name}.{operation.name}"
        bad = state is not None and state is not State.HEALTHY
        seen = (
            f"{what} was judged {state.name}"
            if bad and state
            else f"{what} is being let in step by step"
        )
        message = f"{name}: not sent, because {seen}; ask again in {after:.1f} s, or use a fallback"
        return BreakerOpen(message, target=name, state=state, retry_after=after)

    def _full(self, limit: Limit) -> Refused:
        name = self.target.name
        most = limit.most
        message = f"{name}: not sent, because {most} attempts are in flight already (limit={most})"
        return LimitReached(message, target=name, state=self._state(), retry_after=None)
