"""Budget, limit, breaker: exact local invariants."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brownout import Breaker, OutcomeClass, State
from brownout._core.breaker import CLOSED, OPEN, PROBING, RAMP, TRANSITIONS, Gate
from brownout._core.budget import FIRST, MOST_SAVED, Budget
from brownout._core.limit import Limit

OK, SILENT, LEFT = OutcomeClass.SUCCESS, OutcomeClass.UNKNOWN, OutcomeClass.CANCELLED


@given(st.lists(st.integers(0, 20), max_size=60), st.floats(0.01, 1.0))
def test_extra_attempts_stay_within_the_budget(calls: list[int], share: float) -> None:
    budget, made, spent = Budget(threading.Lock()), 0, 0
    for more in calls:
        made += more
        spent += budget.spend(made, share)
        assert 0.0 <= budget.balance <= MOST_SAVED
        assert spent <= FIRST + made * share + 1e-6


def test_a_limit_counts_exactly() -> None:
    limit = Limit(2)
    assert [limit.take(), limit.take(), limit.take()] == [True, True, False]
    limit.give()
    assert limit.in_use == 1
    assert limit.take()


def gate(**changes: object) -> Gate:
    return Gate(Breaker(**changes), threading.Lock(), lambda: 0.5)  # type: ignore[arg-type]


def opened(**changes: object) -> Gate:
    one = gate(**changes)
    one.observe(State.UNRESPONSIVE, 10.0, 10.0)
    assert one.phase is OPEN
    return one


@pytest.mark.parametrize("state", [None, State.HEALTHY, State.DEGRADED, State.OVERLOADED])
def test_a_partial_failure_does_not_open_it(state: State | None) -> None:
    one = gate()
    one.observe(state, 10.0, 10.0)
    assert one.phase is CLOSED


def test_it_opens_at_what_it_was_told_to() -> None:
    one = gate(open_at=State.DEGRADED)
    one.observe(State.DEGRADED, 10.0, 10.0)
    assert one.phase is OPEN


def test_a_herd_gets_only_the_probes() -> None:
    one = opened()
    assert one.admit(10.5) == (False, None)
    answers = [one.admit(11.0) for _ in range(50)]
    assert sum(admitted for admitted, _ in answers) == 3


def test_good_probes_lead_through_a_ramp_to_closed() -> None:
    one = opened()
    for _ in range(3):
        _, lease = one.admit(11.0)
        assert lease is not None
        one.settle(lease, OK, 11.1)
    assert one.phase is RAMP
    early = sum(one.admit(11.1 + i * 0.001)[0] for i in range(100))
    assert 5 <= early <= 15
    assert one.admit(14.0) == (True, None)
    assert one.phase is CLOSED


@pytest.mark.parametrize("class_", [OutcomeClass.FAILURE, OutcomeClass.OVERLOAD])
def test_a_target_that_comes_back_half_well_is_let_in(class_: OutcomeClass) -> None:
    one, strict = opened(), opened(open_at=State.DEGRADED)
    for each in (one, strict):
        for _ in range(3):
            _, lease = each.admit(11.0)
            each.settle(lease or 0, class_, 11.1)
    assert (one.phase, strict.phase) == (RAMP, OPEN)


def test_evidence_from_before_the_ramp_does_not_open_it_again() -> None:
    one = opened(probes=1)
    _, lease = one.admit(11.0)
    one.settle(lease or 0, OK, 11.1)
    one.observe(State.UNRESPONSIVE, 10.9, 11.2)
    assert one.phase is RAMP
    one.observe(State.UNRESPONSIVE, 11.3, 11.3)
    assert one.phase is OPEN


def test_a_bad_probe_opens_it_for_longer() -> None:
    one = opened()
    _, lease = one.admit(11.0)
    one.settle(lease or 0, SILENT, 11.5)
    assert (one.phase, one.until) == (OPEN, 13.5)


def test_a_hung_probe_does_not_wedge_it() -> None:
    one = opened(lease=2.0)
    for _ in range(3):
        assert one.admit(11.0)[0]
    assert not one.admit(12.0)[0]
    assert not one.admit(13.5)[0]  # the leases are over: as bad as it was
    assert one.phase is OPEN
    assert one.admit(one.until)[0]


def test_a_cancelled_probe_neither_closes_nor_wedges_it() -> None:
    one = opened(probes=1)
    for _ in range(5):
        admitted, lease = one.admit(11.0)
        assert admitted
        one.settle(lease or 0, LEFT, 11.0)
    assert one.phase is PROBING


def test_after_a_fork_it_is_as_new() -> None:
    """The parent's probes, and how long it had come to wait, are the parent's."""
    one = opened(probes=1)
    for now in (11.0, 14.0):
        _, lease = one.admit(now)
        one.settle(lease or 0, SILENT, now)
    _, theirs = one.admit(19.0)
    one.renew(threading.Lock())
    assert one.phase is CLOSED
    one.observe(State.UNRESPONSIVE, 20.0, 20.0)
    assert (one.phase, one.until) == (OPEN, 21.0)
    _, mine = one.admit(21.0)
    assert mine != theirs
    one.settle(theirs or 0, OK, 21.1)
    assert one.phase is PROBING
    assert not one.admit(21.9)[0]
    one.admit(22.1)  # its lease is as short as the first
    assert one.phase is OPEN


def test_a_late_answer_of_an_earlier_generation_lets_nobody_in() -> None:
    one = opened(probes=2)
    _, first = one.admit(11.0)
    _, second = one.admit(11.0)
    one.settle(second or 0, SILENT, 11.1)
    one.settle(first or 0, OK, 11.2)
    assert one.phase is OPEN
    assert not one.admit(11.3)[0]


class GateMoves(RuleBasedStateMachine):
    """The gate moves by the table only, and never lets more than its probes out."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = gate(lease=2.0)
        self.now = 0.0
        self.before = self.gate.phase
        self.out: dict[int, float] = {}

    def moved(self) -> None:
        after = self.gate.phase
        steps = {(a, b) for (a, _), b in TRANSITIONS.items()}
        assert after is self.before or (self.before, after) in steps | {(OPEN, PROBING)}
        if after is not self.before:
            self.out.clear()
        self.before = after

    @rule(state=st.sampled_from(State), age=st.floats(0.0, 1.0))
    def observe(self, state: State, age: float) -> None:
        self.gate.observe(state, self.now - age, self.now)
        self.moved()

    @precondition(lambda self: self.gate.phase is not CLOSED)
    @rule()
    def admit(self) -> None:
        _, lease = self.gate.admit(self.now)
        self.moved()
        if lease is not None:
            self.out[lease] = self.now

    @rule(class_=st.sampled_from(OutcomeClass), data=st.data())
    def settle(self, class_: OutcomeClass, data: st.DataObject) -> None:
        if self.out:
            lease = data.draw(st.sampled_from(sorted(self.out)))
            del self.out[lease]
            self.gate.settle(lease, class_, self.now)
            self.moved()

    @rule(seconds=st.floats(0.0, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def probes(self) -> None:
        """Those whose lease is over may still hang; no more than so many are sent in a lease."""
        assert sum(sent + 2.0 > self.now for sent in self.out.values()) <= 3


TestGateMoves = GateMoves.TestCase


def test_a_part_that_hangs_does_not_hold_up_the_probes_that_are_answered() -> None:
    one = opened(lease=2.0)
    leases = [one.admit(11.0)[1] for _ in range(3)]
    for lease in leases[1:]:
        one.settle(lease or 0, OK, 11.1)
    assert one.admit(12.9) == (False, None)
    admitted, lease = one.admit(13.1)
    assert admitted
    one.settle(leases[0] or 0, OK, 13.2)  # too late: it counts for nothing
    assert one.phase is PROBING
    one.settle(lease or 0, OK, 13.2)
    assert one.phase is RAMP


def test_without_a_lease_of_its_own_a_probe_has_as_long_as_it_was_waited_for() -> None:
    one = opened(wait=1.0, lease=None)
    for now, held in ((11.5, 1.0), (14.6, 2.0), (21.0, 4.0)):
        assert one.admit(now)[0]
        for _ in range(2):
            one.admit(now)
        one.admit(now + held - 0.01)
        assert one.phase is PROBING
        one.admit(now + held + 0.01)
        assert one.phase is OPEN


def test_a_target_that_takes_longer_than_was_ever_waited_is_let_in_within_its_timeout() -> None:
    one = Gate(Breaker(wait=1.0, wait_most=4.0), threading.Lock(), lambda: 0.5, 60.0)
    one.observe(State.UNRESPONSIVE, 0.0, 0.0)
    now = 0.0
    for _ in range(5):  # each probe is answered after twenty seconds
        now = max(now, one.until)
        leases = [one.admit(now)[1] for _ in range(3)]
        while one.phase is PROBING and now < one.until + 20.0:
            now += 1.0
            one.admit(now)
        for lease in leases:
            one.settle(lease or 0, OK, now)
        if one.phase is RAMP:
            return
    pytest.fail("it is never let in again")
