"""The one order: deadline, breaker, limit, attempt, settle, recover.

`Core` is one guard's own: its policy, its gates, its permits. It is told the time, and never waits.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING
from weakref import ref

from brownout._core.attempt import Attempt
from brownout._core.breaker import CLOSED, Gate
from brownout._core.limit import Limit
from brownout._core.outcome import Certainty, OutcomeClass, Shown
from brownout._core.sketch import BUCKETS, OFFSET, PER_OCTAVE, TINY
from brownout._core.state import State
from brownout.errors import BreakerOpen, DeadlinePassed, LimitReached, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.operation import Operation
    from brownout._core.policy import Policy
    from brownout._core.target import Mutex, Target

ASK_SHARE = 0.1  # of the calls, where no budget for retries says otherwise
_SUCCESS = OutcomeClass.SUCCESS
_NEVER = (OutcomeClass.LOCAL, OutcomeClass.CANCELLED, OutcomeClass.SHORT)


class Core:
    """One guard's decisions: may an attempt start, what did it show, may it be tried again."""

    __slots__ = (
        "__weakref__", "_chance", "_mutex", "gates", "limit", "policy", "target", "timeout",
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
        self.timeout = policy.timeout

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
        new = Gate(self.policy.breaker, self._mutex(), self._chance, self.timeout)
        gate = self.gates.setdefault(operation, new)
        if gate is new:
            operation.gates.append(ref(new, operation.gates.remove))
        return gate

    def admit(
        self, operation: Operation, thread: int, now: float, deadline: float, tried: int = 0
    ) -> Attempt | Refused:
        """An attempt that may start now, or the refusal.

        `thread` names the shard; `deadline` is the call's; only a call's first attempt earns budget.
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
        attempt = Attempt(shard, now, now + self.timeout)
        if deadline < attempt.deadline:
            attempt.deadline = deadline
            attempt.inherited = True
        if probe is not None:
            attempt.probe = probe
        if tried:
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
        seconds = shard.took(attempt, now)
        index = int(log2(seconds) * PER_OCTAVE + OFFSET) if seconds > TINY else 0
        shard.answered[index if index < BUCKETS else BUCKETS - 1] += 1
        if attempt.waited_seconds:
            shard.waited += attempt.waited_seconds
        if attempt.labels:
            shard.labelled.add(attempt, _SUCCESS, seconds, now)
        if self.limit is not None:
            self.limit.free.append(None)
        if now >= operation.due:
            self._after(operation, attempt, _SUCCESS, now)
        return True

    def settle(
        self, operation: Operation, attempt: Attempt, class_: OutcomeClass, now: float
    ) -> bool:
        """Count what an attempt showed, once; False if it had been settled before."""
        if not attempt.shard.settle(attempt, class_, now):
            return False
        if self.limit is not None:
            self.limit.give()
        self._after(operation, attempt, class_, now)
        return True

    def _after(
        self, operation: Operation, attempt: Attempt, class_: OutcomeClass, now: float
    ) -> None:
        if attempt.probe is not None:
            gate, lease = attempt.probe
            gate.settle(lease, class_, now)
        self.hear(operation, class_, now)

    def hear(self, operation: Operation, class_: OutcomeClass, now: float) -> None:
        """Fold if it is time, and ahead of time if an attempt did not end well."""
        if class_ is not _SUCCESS and class_ is not OutcomeClass.LOCAL:
            self.target.tick(now, operation)
        elif now >= self.target.next_fold:
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

    def may_ask(self) -> bool:
        """Whether the target's budget pays for one more question about an unknown outcome."""
        share = ASK_SHARE if self.policy.retry is None else self.policy.retry.budget
        return self.target.budget.spend(self.target.calls, share)

    def chance(self) -> float:
        """A number in [0, 1), for jitter."""
        return self._chance()

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
