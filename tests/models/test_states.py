"""A target's states: whatever its callers suffer, they move by the table alone, and on its evidence."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from brownout import OutcomeClass, State
from brownout._core import operation
from brownout._core.because import ENOUGH_CALLS
from brownout._core.state import MOVES, moved
from tests.core.test_judge import FAIL, HUNG, REFUSED, SHED, Stream, healthy, slower, some

ROWS = {
    (before, move.event, after)
    for move in MOVES
    for before in move.before
    for after in move.after
    if before is not after
}
LEFT = (inf, OutcomeClass.CANCELLED)
SERVICES = {
    "well": healthy,
    "slow": slower(8),
    "part fails": some(0.4, (0.01, FAIL)),
    "all fails": some(1.0, (0.01, FAIL)),
    "part hangs": some(0.3, HUNG),
    "all hangs": some(1.0, HUNG),
    "refuses for load": some(0.5, (0.003, SHED)),
    "is not there": some(1.0, (0.001, REFUSED)),
    "is left": some(0.7, LEFT),
}


class States(RuleBasedStateMachine):
    """One operation, its callers, and what they suffer, one thing after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream(1)
        self.operation = self.stream.operation
        self.state: State | None = None
        self.ended = 0  # calls, when it last became ill or got another name,
        self.at = 0.0  # and when that was: one fold may see much
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(operation, "moved", self.moves)

    def teardown(self) -> None:
        self._patch.undo()

    def moves(self, before: State | None, event: str, after: State | None) -> State | None:
        """What is asked of each move, by what the operation knows in that moment."""
        evidence, judge = self.operation.evidence, self.operation.judge
        assert before is self.state
        assert (before, event, after) in ROWS
        match event:
            case "known":
                assert evidence.settled >= ENOUGH_CALLS
                assert not judge.suspicious
            case "few":
                assert evidence.settled < ENOUGH_CALLS / 2
            case "lapsed":
                assert evidence.settled == 0
            case "alarm" | "renamed":
                assert judge.finding is not None
                assert judge.finding.state is after
                self.ended, self.at = evidence._ended_ever, self.stream.now
            case "recovered":
                assert judge.finding is None
                assert evidence._ended_ever > self.ended or self.at == self.stream.now
                assert after is (State.HEALTHY if self.operation.known else None)
            case _:
                assert event == "forgotten"
                assert not evidence.in_flight
        self.state = moved(before, event, after)
        return self.state

    @rule(
        what=st.sampled_from(sorted(SERVICES)),
        rate=st.sampled_from([3, 30, 100]),
        seconds=st.sampled_from([0.3, 1.0, 4.0]),
    )
    def call(self, what: str, rate: float, seconds: float) -> None:
        self.stream.run(SERVICES[what], rate, seconds)

    @rule(seconds=st.sampled_from([1.0, 15.0, 40.0]))
    def be_silent(self, seconds: float) -> None:
        self.stream.run(healthy, 0.0, seconds)

    @rule(seconds=st.sampled_from([0.2, 5.0, 100.0]))
    def fold_late(self, seconds: float) -> None:
        """Nobody has looked for so long."""
        self.stream.now += seconds
        self.operation.fold(self.stream.now)

    @rule()
    def fork(self) -> None:
        self.stream.flying.clear()
        self.operation.forget(self.stream.now)

    @invariant()
    def it_is_what_the_judge_found(self) -> None:
        finding = self.operation.judge.finding
        known = State.HEALTHY if self.operation.known else None
        assert self.operation.state is self.state
        assert self.state is (known if finding is None else finding.state)


TestStates = States.TestCase
# A failure is not shrunk: each try of it is seconds of calls.
TestStates.settings = settings(
    max_examples=30,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []

    def moves(before: State | None, event: str, after: State | None) -> State | None:
        events.append(event)
        return moved(before, event, after)

    monkeypatch.setattr(operation, "moved", moves)
    return events


def test_every_event_of_the_table_comes_about(seen: list[str]) -> None:
    stream = Stream(1)
    stream.run(healthy, 50, 3)
    stream.run(SERVICES["part fails"], 50, 3)
    stream.run(SERVICES["is not there"], 50, 5)
    stream.run(healthy, 50, 20)
    stream.run(healthy, 0, 40)
    stream.run(SERVICES["all hangs"], 50, 3)
    stream.run(healthy, 0, 40)
    stream.run(healthy, 50, 3)
    stream.operation.forget(stream.now)
    assert seen[:2] == ["known", "alarm"]
    assert set(seen) == {move.event for move in MOVES}


def test_nothing_is_called_healthy_for_the_first_time_while_it_looks_ill() -> None:
    looked_ill = 0
    for seed in range(1, 6):
        stream = Stream(seed)
        operation, state = stream.operation, None
        while state is None and stream.now < 3.0:
            stream.run(some(0.2, (0.01, FAIL)), 30, 0.1)
            enough, state = operation.evidence.settled >= ENOUGH_CALLS, operation.state
            if enough and operation.judge.finding is None and operation.judge.suspicious:
                looked_ill += 1
                assert state is None
    assert looked_ill > 0


def test_a_move_that_is_not_in_the_table_is_refused() -> None:
    states = (None, *State)
    events = {move.event for move in MOVES} | {"wish"}
    for before, event, after in itertools.product(states, events, states):
        if (before, event, after) in ROWS:
            assert moved(before, event, after) is after
        else:
            with pytest.raises(AssertionError, match="no row of the table"):
                moved(before, event, after)
    assert (State.UNRESPONSIVE, "known", State.HEALTHY) not in ROWS
    assert (State.CRASHED, "few", None) not in ROWS
