"""One target, two guards, any sequence of steps: what must add up does so after each of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from brownout import Attempt, Breaker, BreakerOpen, LimitReached, OutcomeClass, Retry, State
from brownout._core.breaker import CLOSED
from brownout._core.budget import FIRST, MOST_SAVED
from brownout._core.guard import Core
from brownout._core.outcome import Shown
from brownout._core.policy import Policy
from brownout._core.target import Target
from brownout.errors import DeadlinePassed

if TYPE_CHECKING:
    from brownout._core.held import Held
    from brownout._core.operation import Operation

TIMEOUT = 1.0
LIMITS = (2, 5)
BUDGET = 0.3


@dataclass(frozen=True, eq=False)
class Flight:
    """An attempt in flight, as the model knows it."""

    attempt: Attempt
    core: Core
    operation: Operation
    tried: int
    held: Held | None = None


class OneTarget(RuleBasedStateMachine):
    """Admitted = settled + in flight, permits in use = attempts in flight, extra attempts <= budget."""

    flights = Bundle["Flight | None"]("flights")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.alive = frozenset(range(4))
        self.target = Target("t", threading.Lock, lambda: self.alive)
        policies = [Policy("t", TIMEOUT, Retry(5, BUDGET), Breaker(), limit) for limit in LIMITS]
        self.cores = [Core(one, self.target, threading.Lock, lambda: 0.5) for one in policies]
        self.operations = [self.target.operation(name, self.now) for name in ("read", "write")]
        for core in self.cores:
            for operation in self.operations:
                core.gate(operation)
        self.begin()

    def begin(self) -> None:
        self.flying: list[Flight] = []
        self.calls = self.extra = 0
        self.ended = dict.fromkeys(self.operations, 0)

    def fly(self, core: Core, operation: Operation, thread: int, tried: int) -> Flight | None:
        found = core.admit(operation, thread, self.now, self.now + 5.0, tried)
        self.over()  # it may have folded
        if isinstance(found, LimitReached):
            assert core.limit is not None
            assert core.limit.in_use == core.limit.most
            return None
        if isinstance(found, BreakerOpen):
            assert core.gates[operation].phase is not CLOSED
            return None
        assert isinstance(found, Attempt)
        self.calls += not tried
        flight = Flight(found, core, operation, tried + 1)
        self.flying.append(flight)
        return flight

    def over(self) -> None:
        """A fold ends what is held at its deadline; it happens where it is due, and changes nothing else."""
        for flight in self.flying[:]:
            holds = flight.operation.evidence.holds
            if flight.held is not None and flight.held not in holds._table:
                assert self.now >= flight.attempt.deadline
                self.end(flight)

    def end(self, flight: Flight) -> None:
        self.flying.remove(flight)
        self.ended[flight.operation] += 1

    @rule(
        target=flights,
        core=st.integers(0, 1),
        operation=st.integers(0, 1),
        thread=st.integers(0, 3),
    )
    def call(self, core: int, operation: int, thread: int) -> Flight | None:
        return self.fly(self.cores[core], self.operations[operation], thread, 0)

    @rule(
        target=flights, core=st.integers(0, 1), operation=st.integers(0, 1), calls=st.integers(2, 6)
    )
    def crowd(self, core: int, operation: int, calls: int) -> Any:
        """Many at once, also before a gate that may let its probes out by now."""
        gate = self.cores[core].gates[self.operations[operation]]
        self.now = max(self.now, gate.until)
        called = [
            self.fly(self.cores[core], self.operations[operation], n % 4, 0) for n in range(calls)
        ]
        return multiple(*called)

    @rule(core=st.integers(0, 1), operation=st.integers(0, 1))
    def call_too_late(self, core: int, operation: int) -> None:
        found = self.cores[core].admit(self.operations[operation], 0, self.now, self.now)
        assert isinstance(found, DeadlinePassed)
        self.over()

    @rule(flight=flights)
    def succeed(self, flight: Flight | None) -> None:
        if flight is not None:
            flies = flight in self.flying and flight.held is None
            assert flight.core.succeed(flight.operation, flight.attempt, self.now) is flies
            if flies:
                self.end(flight)
            self.over()

    @rule(flight=flights, class_=st.sampled_from(OutcomeClass))
    def settle(self, flight: Flight | None, class_: OutcomeClass) -> None:
        if flight is not None:
            flies = flight in self.flying and flight.held is None
            assert flight.core.settle(flight.operation, flight.attempt, class_, self.now) is flies
            if flies:
                self.end(flight)
            self.over()

    @rule(
        target=flights,
        flight=consumes(flights),
        thread=st.integers(0, 3),
        class_=st.sampled_from(OutcomeClass),
    )
    def fail_and_retry(
        self, flight: Flight | None, thread: int, class_: OutcomeClass
    ) -> Flight | None:
        return self.retried(flight, thread, class_)

    def retried(self, flight: Flight | None, thread: int, class_: OutcomeClass) -> Flight | None:
        if flight is None or flight not in self.flying or flight.held is not None:
            return flight
        flight.core.settle(flight.operation, flight.attempt, class_, self.now)
        self.end(flight)
        self.over()
        shown = Shown.of(class_)
        wait = flight.core.may_retry(shown, flight.tried, self.now, inf, idempotent=True)
        if wait is None:
            return None
        self.extra += 1
        assert flight.tried < 5
        self.now += wait
        return self.fly(flight.core, flight.operation, thread, flight.tried)

    @rule(core=st.integers(0, 1), operation=st.integers(0, 1), calls=st.integers(1, 5))
    def outage(self, core: int, operation: int, calls: int) -> None:
        """Every attempt fails, and is tried again for as long as that is allowed."""
        for _ in range(calls):
            flight = self.fly(self.cores[core], self.operations[operation], 0, 0)
            while flight is not None:
                flight = self.retried(flight, 0, OutcomeClass.FAILURE)

    @rule(core=st.integers(0, 1), operation=st.integers(0, 1))
    def judge(self, core: int, operation: int) -> None:
        gate = self.cores[core].gates[self.operations[operation]]
        gate.observe(State.UNRESPONSIVE, self.now, self.now)

    @rule(target=flights, flight=consumes(flights))
    def hold(self, flight: Flight | None) -> Flight | None:
        if flight is None or flight not in self.flying or flight.held is not None:
            return flight
        holds = flight.operation.evidence.holds
        held = holds.take(flight.attempt, flight.core.limit, self.now)
        new = Flight(flight.attempt, flight.core, flight.operation, flight.tried, held)
        self.flying[self.flying.index(flight)] = new
        return new

    @rule(flight=flights, class_=st.sampled_from(OutcomeClass))
    def end_held(self, flight: Flight | None, class_: OutcomeClass) -> None:
        if flight is not None and flight.held is not None:
            flies = flight in self.flying
            holds = flight.operation.evidence.holds
            assert holds.end(flight.held, class_, self.now) is flies
            if flies:
                self.end(flight)

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(thread=st.integers(0, 3))
    def thread_ends(self, thread: int) -> None:
        self.alive = frozenset(range(4)) - {thread}
        for operation in self.operations:
            operation.evidence.retire(lambda: self.alive)

    @rule()
    def read(self) -> None:
        """Somebody reads the state: everything that has ended is in the window, once."""
        self.target.fold(self.now)
        self.over()
        for operation in self.operations:
            assert operation.evidence._ended_ever == self.ended[operation]
        if all(one.held is None for one in self.flying):
            assert self.target.calls == self.calls

    @rule()
    def fork(self) -> None:
        """A forked child goes on alone: what is in flight is the parent's."""
        self.target.renew(threading.Lock, self.now)
        for core in self.cores:
            core.renew()
        self.begin()

    @invariant()
    def attempts_add_up(self) -> None:
        for operation in self.operations:
            flying = [one for one in self.flying if one.operation is operation]
            assert operation.evidence.in_flight == len(flying)
        assert self.target.problem is None

    @invariant()
    def permits_add_up(self) -> None:
        for core in self.cores:
            assert core.limit is not None
            assert core.limit.in_use == sum(one.core is core for one in self.flying)

    @invariant()
    def every_lease_is_that_of_a_probe_in_flight(self) -> None:
        for core in self.cores:
            for operation, gate in core.gates.items():
                laid_aside = [held.attempt for held, _ in operation.evidence.holds._ended]
                attempts = [*(one.attempt for one in self.flying), *laid_aside]
                probes = [one.probe[1] for one in attempts if one.probe and one.probe[0] is gate]
                assert set(gate._leases) <= set(probes)

    @invariant()
    def the_budget_holds(self) -> None:
        assert 0.0 <= self.target.budget.balance <= MOST_SAVED
        assert self.extra <= FIRST + self.calls * BUDGET + 1e-6


TestOneTarget = OneTarget.TestCase
TestOneTarget.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
