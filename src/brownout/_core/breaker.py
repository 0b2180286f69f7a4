"""The breaker's gate: open, probing, ramp, closed.

It must not make a partial failure total, so it opens on the *state* of the target, not on a count of
failures. Probes are leased: each carries the generation it belongs to and an end, so that a hung probe
can't wedge the gate, a cancelled one can't close it, and a late answer to an earlier generation lets
nobody in. Recovery is a ramp, so that no herd follows the last probe.

    CLOSED --bad--> OPEN --waited--> PROBING --good--> RAMP --done--> CLOSED
                     ^------------------bad--+----------bad-+
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from brownout._core.outcome import OutcomeClass
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.policy import Breaker
    from brownout._core.target import Mutex


class GatePhase(Enum):
    """What a gate does with a call."""

    CLOSED = "closed"  # current flows: every call is admitted
    OPEN = "open"
    PROBING = "probing"
    RAMP = "ramp"


CLOSED, OPEN, PROBING, RAMP = GatePhase.CLOSED, GatePhase.OPEN, GatePhase.PROBING, GatePhase.RAMP
TRANSITIONS = {
    (CLOSED, "bad"): OPEN,
    (OPEN, "waited"): PROBING,
    (PROBING, "bad"): OPEN,
    (PROBING, "good"): RAMP,
    (RAMP, "bad"): OPEN,
    (RAMP, "done"): CLOSED,
}
_LEAST_SHARE = 0.1
# A probe looks whether the target answers at all, so by default only these are bad. What else would open
# the gate is bad as well: a target that comes back 30 % failing is let in, unless asked otherwise.
_ALWAYS_BAD = (OutcomeClass.UNKNOWN, OutcomeClass.CONNECT)
_ALSO_BAD = ((State.OVERLOADED, OutcomeClass.OVERLOAD), (State.DEGRADED, OutcomeClass.FAILURE))
_NO_ANSWER = (OutcomeClass.CANCELLED, OutcomeClass.SHORT, OutcomeClass.LOCAL)


class Gate:
    """One guard's breaker before one operation.

    `chance` gives a number in [0, 1); `mutex` is held for arithmetic only; an attempt takes `timeout`
    seconds at most.
    """

    __slots__ = (
        "__weakref__", "_admitted", "_bad", "_chance", "_good", "_lease", "_lease_most", "_leases",
        "_mutex", "_next_lease", "_opens", "_policy", "_wait", "phase", "since", "until",
    )  # fmt: skip

    def __init__(
        self, policy: Breaker, mutex: Mutex, chance: Callable[[], float], timeout: float = inf
    ) -> None:
        self._policy = policy
        self._chance = chance
        self._lease_most = max(policy.wait_most, timeout if timeout < inf else 0.0)
        floor = policy.open_at or State.UNRESPONSIVE
        self._opens = tuple(state for state in State if state.severity >= floor.severity)
        self._bad = _ALWAYS_BAD + tuple(
            class_ for state, class_ in _ALSO_BAD if state in self._opens
        )
        self._next_lease = 0
        self.renew(mutex)

    def renew(self, mutex: Mutex) -> None:
        """As new, after a fork: the probes are the parent's, and so may be the lock."""
        self._mutex = mutex
        self._wait = self._lease = self._policy.wait
        self._leases: dict[int, float] = {}
        self._good = 0
        self._admitted = 0.0
        self.phase = CLOSED
        self.since = float("-inf")
        self.until = 0.0

    def _move(self, event: str, now: float) -> None:
        self.phase = TRANSITIONS[self.phase, event]
        self.since = now
        self._leases.clear()  # what is still out belongs to an earlier generation now
        self._good = 0
        self._admitted = 0.0
        if self.phase is OPEN:
            # One that answers, but later than was ever waited, is to be let in too: so the time-out.
            longest = self._wait >= self._policy.wait_most
            self._lease = self._lease_most if longest else self._wait
            self.until = now + self._wait * (0.75 + 0.5 * self._chance())
            self._wait = min(self._wait * 2, self._policy.wait_most)
        elif self.phase is RAMP:
            self._wait = self._policy.wait

    def observe(self, state: State | None, supported_at: float, now: float) -> None:
        """Open if the target is judged bad enough on evidence later than the gate's last move."""
        if state not in self._opens or self.phase not in {CLOSED, RAMP}:
            return
        with self._mutex:
            if self.phase in {CLOSED, RAMP} and supported_at > self.since:
                self._move("bad", now)

    def admit(self, now: float) -> tuple[bool, int | None]:
        """Whether a call may start, and the lease of the probe if it is one. Only asked while not CLOSED."""
        with self._mutex:
            if self.phase is OPEN and now >= self.until:
                self._move("waited", now)
            if self.phase is PROBING:
                return self._probe(now)
            if self.phase is RAMP:
                return self._ramp(now), None
            return self.phase is CLOSED, None

    def _probe(self, now: float) -> tuple[bool, int | None]:
        over = [lease for lease, end in self._leases.items() if end <= now]
        if over and not self._good:  # they hang, and none was answered: as bad as it was
            self._move("bad", now)
            return False, None
        for lease in over:  # others were answered: a part that hangs must not hold up all
            del self._leases[lease]
        if len(self._leases) + self._good >= self._policy.probes:
            return False, None
        self._next_lease += 1
        self._leases[self._next_lease] = now + (self._policy.lease or self._lease)
        return True, self._next_lease

    def _ramp(self, now: float) -> bool:
        share = (now - self.since) / self._policy.ramp
        if share >= 1.0:
            self._move("done", now)
            return True
        self._admitted += max(share, _LEAST_SHARE)
        if self._admitted < 1.0:
            return False
        self._admitted -= 1.0
        return True

    def settle(self, lease: int, class_: OutcomeClass, now: float) -> None:
        """What a probe showed. An expired lease, or one of an earlier generation, changes nothing."""
        with self._mutex:
            if self._leases.pop(lease, None) is None or class_ in _NO_ANSWER:
                return
            if class_ in self._bad:
                self._move("bad", now)
                return
            self._good += 1
            if self._good >= self._policy.probes:
                self._move("good", now)

    def give_back(self, lease: int) -> None:
        """A probe that was not sent after all."""
        with self._mutex:
            self._leases.pop(lease, None)

    def retry_after(self, now: float) -> float:
        """Seconds after which it is worth asking again."""
        return max(0.0, self.until - now) if self.phase is OPEN else min(1.0, self._policy.wait)
