"""Shards, folds, and the window: nothing is lost, and a hang is seen while it lasts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from brownout import Attempt, OutcomeClass
from brownout._core.evidence import CELL_SECONDS, CELLS, Evidence
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


def test_a_dead_threads_shard_is_freed_and_its_calls_are_kept() -> None:
    evidence = Evidence(0.0)
    for thread in range(100):
        attempt = begin(evidence, thread, 0.0)
        if thread:
            attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.1)
    evidence.fold(0.2)
    evidence.retire(frozenset({1}), 0.2)
    assert set(evidence.shards) == {1}
    assert (evidence.calls, evidence.in_flight) == (
        100,
        1,
    )  # thread 0 died with an attempt in flight
    assert evidence.fold(0.3).classes[OutcomeClass.SUCCESS] == 0
    evidence.retire(frozenset({1}), 20.0)
    assert (evidence.calls, evidence.in_flight) == (100, 1)
    assert len(evidence._ended) == 1


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

    @rule(seconds=st.floats(0.0, 3.0))
    def fold(self, seconds: float) -> None:
        self.now += seconds
        tick = self.evidence.fold(self.now)
        self.folded += sum(tick.classes)
        self.started += tick.started
        assert self.folded == self.settled
        assert self.started == self.begun

    @invariant()
    def balance(self) -> None:
        assert self.begun == self.settled + self.evidence.in_flight


TestCounting = Counting.TestCase


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.001, 5.0)), max_size=30))
def test_shards_add_up_in_any_order(calls: list[tuple[int, float]]) -> None:
    one, other = Evidence(0.0), Evidence(0.0)
    for evidence, order in ((one, calls), (other, list(reversed(calls)))):
        for thread, seconds in order:
            attempt = begin(evidence, thread, 0.0)
            attempt.shard.settle(attempt, OutcomeClass.SUCCESS, seconds)
        evidence.fold(6.0)
    assert one.window().sketch.pairs() == other.window().sketch.pairs()
