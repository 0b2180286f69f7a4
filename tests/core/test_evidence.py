"""Shards, folds, and the window: nothing is lost, and a hang is seen while it lasts."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from brownout import Attempt, OutcomeClass
from brownout._core.cell import CELL_SECONDS
from brownout._core.evidence import CELLS, GRACE_SECONDS, Evidence
from brownout._core.sketch import bucket


def begin(evidence: Evidence, thread: int, now: float) -> Attempt:
    shard = evidence.shard(thread)
    attempt = Attempt(shard, now, now + 1.0)
    shard.pending[attempt] = None
    return attempt


def test_a_fold_sees_what_is_new_and_what_is_in_flight() -> None:
    evidence = Evidence(0.0)
    done, hung = begin(evidence, 1, 0.0), begin(evidence, 2, 0.0)
    done.shard.settle(done, OutcomeClass.SUCCESS, 0.01)
    tick = evidence.fold(0.1)
    assert (tick.started, tick.answered, tick.ages) == (2, [(bucket(0.01), 1)], [bucket(0.1)])
    assert evidence.in_flight == 1
    again = evidence.fold(0.2)
    assert (again.started, again.answered, again.ages) == (0, [], [bucket(0.2)])
    hung.shard.settle(hung, OutcomeClass.UNKNOWN, 0.3)
    assert evidence.fold(0.4).censored == [(bucket(0.3), 1)]


def test_an_attempt_is_settled_once() -> None:
    evidence = Evidence(0.0)
    attempt = begin(evidence, 1, 0.0)
    assert attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.1)
    assert not attempt.shard.settle(attempt, OutcomeClass.FAILURE, 0.2)
    assert evidence.fold(1.0).classes[OutcomeClass.FAILURE] == 0


def test_the_wait_for_our_own_pool_is_not_the_targets() -> None:
    evidence = Evidence(0.0)
    attempt = begin(evidence, 1, 0.0)
    attempt.waiting()
    assert (evidence.fold(0.5).ages, evidence.fold(0.5).queued) == ([], 1)
    attempt.waited(0.5)
    attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.52)
    tick = evidence.fold(0.6)
    assert tick.answered == [(bucket(0.02), 1)]
    assert tick.waited == 0.5


def test_the_window_forgets() -> None:
    evidence = Evidence(0.0)
    attempt = begin(evidence, 1, 0.0)
    attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.1)
    evidence.fold(0.2)
    assert evidence.window().calls == evidence.settled == 1
    evidence.fold(0.3 + CELLS * CELL_SECONDS)
    assert evidence.window().calls == evidence.settled == 0


def settled(evidence: Evidence, thread: int, count: int = 1) -> None:
    for _ in range(count):
        attempt = begin(evidence, thread, 0.0)
        attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.1)


def wait(evidence: Evidence, seconds: float) -> int:
    """Fold for so long; the successes that were new."""
    end, new = evidence.at + seconds, 0
    while evidence.at < end:
        new += evidence.fold(evidence.at + 1.0).classes[OutcomeClass.SUCCESS]
    return new


def test_a_dead_threads_shard_is_freed_and_what_it_counted_is_kept() -> None:
    evidence = Evidence(0.0)
    for thread in range(100):
        settled(evidence, thread)
    evidence.retire(lambda: frozenset({1}))
    assert set(evidence.shards) == {1}
    assert len(evidence._all()) == 1
    assert evidence.calls == 100
    assert evidence.fold(0.2).answered == [(bucket(0.1), 100)]
    assert evidence.fold(0.3).classes == [0] * len(OutcomeClass)


def test_a_dead_threads_attempt_in_flight_keeps_its_shard() -> None:
    evidence = Evidence(0.0)
    left = begin(evidence, 1, 0.0)
    evidence.retire(frozenset)
    assert not evidence.shards
    wait(evidence, GRACE_SECONDS + 2)
    assert (evidence.calls, evidence.in_flight) == (1, 1)
    left.shard.settle(left, OutcomeClass.SUCCESS, evidence.at)
    assert wait(evidence, 1.0) == 1
    assert (evidence.calls, evidence.in_flight, len(evidence._all())) == (1, 0, 0)


def test_a_thread_that_took_over_the_number_of_a_dead_one_loses_no_count() -> None:
    evidence = Evidence(0.0)
    settled(evidence, 1)
    its = evidence.shard(1)  # it has looked its shard up, and then
    snapshots = iter([frozenset[int](), frozenset({1})])
    evidence.retire(lambda: next(snapshots))
    attempt = Attempt(its, 0.0, 1.0)
    its.pending[attempt] = None
    assert evidence.in_flight == 1
    its.settle(attempt, OutcomeClass.SUCCESS, 0.1)
    settled(evidence, 1)
    assert evidence.fold(0.2).classes[OutcomeClass.SUCCESS] == evidence.calls == 3


def test_a_shard_is_replaced_long_before_a_count_overflows() -> None:
    evidence = Evidence(0.0)
    settled(evidence, 1)
    settled(evidence, 2)
    full = evidence.shard(1)
    flying = begin(evidence, 1, 0.0)
    full.answered[bucket(0.1)] = 2**31
    assert evidence.fold(0.1).classes[OutcomeClass.SUCCESS] == 2**31 + 1
    assert evidence.shard(1) is not full
    settled(evidence, 1)
    flying.shard.settle(flying, OutcomeClass.SUCCESS, 0.1)
    assert wait(evidence, GRACE_SECONDS + 2) == 2
    assert (evidence.calls, evidence.in_flight) == (2**31 + 3, 0)
    assert len(evidence._all()) == 2


def test_the_sum_of_all_shards_may_be_more_than_32_bits_hold() -> None:
    evidence = Evidence(0.0)
    for thread in range(3):
        evidence.shard(thread).answered[7] = 2**31 - 1
        evidence.shard(thread).censored[8] = 2**31 - 1
    tick = evidence.fold(0.1)
    assert tick.answered == [(7, 3 * (2**31 - 1))]
    assert tick.censored == [(8, 3 * (2**31 - 1))]
    assert len(evidence.shards) == 3


def test_a_shard_has_two_kibibytes() -> None:
    shard = Evidence(0.0).shard(1)
    assert shard.answered.itemsize == shard.censored.itemsize == 4
    for class_ in OutcomeClass:
        attempt = Attempt(shard, 0.0, 1.0)
        shard.pending[attempt] = None
        shard.settle(attempt, class_, 0.1)
    parts = (shard, shard.answered, shard.censored, shard.classes, shard.pending)
    assert sum(map(sys.getsizeof, parts)) <= 2048


class Counting(RuleBasedStateMachine):
    """Admitted = settled + in flight, whatever the order of begins, settles and folds."""

    def __init__(self) -> None:
        super().__init__()
        self.evidence = Evidence(0.0)
        self.now = 0.0
        self.flying: list[Attempt] = []
        self.begun = self.settled = self.folded = self.started = 0

    @rule(thread=st.integers(0, 3))
    def start(self, thread: int) -> None:
        self.flying.append(begin(self.evidence, thread, self.now))
        self.begun += 1

    @rule(class_=st.sampled_from(OutcomeClass), data=st.data())
    def end(self, class_: OutcomeClass, data: st.DataObject) -> None:
        if self.flying:
            attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
            attempt.shard.settle(attempt, class_, self.now)
            self.settled += 1

    @rule(thread=st.integers(0, 3), reused=st.booleans())
    def thread_ends(self, thread: int, reused: bool) -> None:
        alive = frozenset(range(4)) - {thread}
        snapshots = iter([alive, alive | {thread} if reused else alive])
        self.evidence.retire(lambda: next(snapshots))

    @rule(seconds=st.floats(0.0, 30.0))
    def fold(self, seconds: float) -> None:
        self.now += seconds
        tick = self.evidence.fold(self.now)
        self.folded += sum(tick.classes)
        self.started += tick.started
        assert self.folded == self.settled
        assert self.started == self.begun

    @invariant()
    def balance(self) -> None:
        assert self.begun == self.settled + self.evidence.in_flight == self.evidence.calls


TestCounting = Counting.TestCase


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.001, 5.0)), max_size=30))
def test_shards_add_up_in_any_order(calls: list[tuple[int, float]]) -> None:
    one, other = Evidence(0.0), Evidence(0.0)
    for evidence, order in ((one, calls), (other, list(reversed(calls)))):
        for thread, seconds in order:
            attempt = begin(evidence, thread, 0.0)
            attempt.shard.settle(attempt, OutcomeClass.SUCCESS, seconds)
        evidence.fold(6.0)
    assert one.window().sketch.told() == other.window().sketch.told()
