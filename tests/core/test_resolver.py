"""Settling by asking: what is told is true, whatever is lost, and every wait ends.

The ledger here is a model: a row that a late request, a worker and questions change as the state table
says. A script decides when the request arrives, what is lost and how long a question takes.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brownout import Certainty, Outcome, OutcomeUnknown, Phase
from brownout._core import resolver
from brownout._core.flow import Ask, Done, Wait
from brownout._core.ledger import Answer, Reply, Standing
from brownout._core.resolver import Busy, Told, Wanted
from brownout.errors import KeyTooOld, LedgerUnavailable, Voided

KEY = "019ebd66-1ffd-7e2a-8a59-000000000000"
OK = Reply(201)
WITHIN = 5.0


class World(NamedTuple):
    """What happens: the request arrives (or never), runs so long, and ends so; questions fare so."""

    arrives: float = inf
    runs: float = 0.0
    ends: Standing = Standing.DONE
    questions: tuple[
        tuple[float, str], ...
    ] = ()  # seconds, and "" or "lost" or "reply lost" or "busy"


class Ledger:
    """The truth about one key, at every instant."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.voided_at = inf
        self.asked: list[tuple[float, bool]] = []

    def standing(self, now: float) -> Standing:
        begun = self.world.arrives
        if self.voided_at <= min(begun, now):
            return Standing.VOID
        if now < begun:
            return Standing.ABSENT
        return Standing.RUNNING if now < begun + self.world.runs else self.world.ends

    def question(self, ask: Ask, now: float) -> tuple[float, Done]:
        """How long a question takes, and what it brings."""
        questions = self.world.questions
        seconds, fate = (
            questions[len(self.asked)] if len(self.asked) < len(questions) else (0.01, "")
        )
        self.asked.append((now, ask.void))
        late = seconds > ask.seconds
        seconds = min(seconds, ask.seconds)
        if fate == "busy":
            return 0.0, Done(None, Busy("in this process"))
        if fate == "lost":
            return seconds, Done(None, ConnectionResetError("lost"))
        at = now + seconds / 2
        if ask.void and self.standing(at) is Standing.ABSENT:
            self.voided_at = at
        if fate == "reply lost" or late:
            return seconds, Done(None, TimeoutError("lost"))
        found = self.standing(at)
        return seconds, Done(Answer(found, OK if found is Standing.DONE else None), None)


class Run(NamedTuple):
    told: Told
    ledger: Ledger
    began: float
    ended: float


def run(
    world: World,
    *,
    void: bool = True,
    within: float = WITHIN,
    may_ask: bool = True,
    absent_at: float = inf,
    chance: float = 0.5,
    ended_at: float = 100.0,
) -> Run:
    ledger, now = Ledger(world), 100.0
    wanted = Wanted(KEY, now + within, void, ended_at, absent_at)
    flow = resolver.resolve(wanted, lambda: chance, lambda: may_ask, now)
    command: Any = next(flow, None)
    try:
        if command is None:
            raise AssertionError("it asked nothing")
        while True:
            if isinstance(command, Wait):
                assert 0 < command.seconds <= within
                now += command.seconds
                command = flow.send((now, None))
            else:
                assert isinstance(command, Ask)
                assert 0 < command.seconds <= within + resolver.LEAST_SECONDS
                seconds, done = ledger.question(command, now)
                now += seconds
                command = flow.send((now, done))
    except StopIteration as stop:
        return Run(stop.value, ledger, 100.0, now)


def known(run: Run, *, void: bool = True) -> Outcome[Any]:
    unknown: Outcome[Any] = Outcome(
        None, TimeoutError("lost"), Certainty.UNKNOWN, 1, 0.1, KEY, Phase.SENT, 100.0
    )
    return resolver.settled(unknown, run.told, "pay", within=WITHIN, void=void)


fates = st.tuples(
    st.sampled_from([0.0, 0.01, 0.3, 2.0, 30.0]),
    st.sampled_from(["", "", "lost", "reply lost", "busy"]),
)
worlds = st.builds(
    World,
    st.sampled_from([0.0, 100.0, 100.2, 102.9, 103.0, 103.01, 104.9, 106.0, 200.0, inf]),
    st.sampled_from([0.0, 0.5, 3.0, 100.0]),
    st.sampled_from([Standing.DONE, Standing.DOUBT]),
    st.lists(fates, max_size=12).map(tuple),
)


@given(
    worlds,
    st.booleans(),
    st.booleans(),
    st.floats(0, 0.999),
    st.sampled_from([0.05, 1.0, 5.0]),
    st.sampled_from([0.0, 99.0, 100.0, inf]),
)
@settings(max_examples=600, deadline=None)
def test_what_is_told_is_true_and_stays_true(
    world: World, void: bool, may_ask: bool, chance: float, within: float, ended_at: float
) -> None:
    ran = run(world, void=void, may_ask=may_ask, chance=chance, within=within, ended_at=ended_at)
    outcome, truth = known(ran, void=void), ran.ledger.standing
    forever = truth(1e9)
    if outcome.succeeded:
        assert truth(ran.ended) is forever is Standing.DONE
        assert outcome.value is OK
    elif outcome.failed:
        assert truth(ran.ended) is forever is Standing.VOID
        assert isinstance(outcome.error, Voided)
    else:
        assert isinstance(outcome.error, OutcomeUnknown)
        assert outcome.error.key == KEY
    assert [outcome.succeeded, outcome.failed, outcome.unknown].count(True) == 1
    assert ran.ended <= ran.began + within + 2 * resolver.LEAST_SECONDS
    assert void or ran.ledger.voided_at == inf
    if not may_ask and ended_at == inf:  # one a second, and those of the last phase
        before = [at for at, _ in ran.ledger.asked if at < 100.0 + within * 0.6 - 1e-9]
        busy = any(fate == "busy" for _, fate in world.questions)  # nothing was asked
        gaps = [b - a for a, b in pairwise(before)]
        assert busy or all(gap >= resolver.SPARSE_SECONDS - 1e-9 for gap in gaps)


@given(worlds.map(lambda world: world._replace(questions=())), st.booleans())
def test_where_nothing_is_lost_it_is_known_or_runs_or_is_in_doubt(
    world: World, may_ask: bool
) -> None:
    ran = run(world, may_ask=may_ask)
    outcome = known(ran)
    if outcome.unknown:
        assert ran.told.answer is not None
        assert ran.told.answer.standing in {Standing.RUNNING, Standing.DOUBT}


def test_what_is_absent_is_asked_for_before_it_is_voided() -> None:
    ran = run(World())
    plain = [at for at, void in ran.ledger.asked if not void]
    voids = [at for at, void in ran.ledger.asked if void]
    assert len(plain) > 3
    assert voids == [pytest.approx(103.0, abs=0.01)]
    gaps = [b - a for a, b in pairwise(plain)]
    assert max(gaps) <= 1.2
    assert gaps[0] < 0.1


@pytest.mark.parametrize(
    ("ended_at", "void_at"),
    [(0.0, 100.0), (98.0, 101.0), (99.9, 102.9), (101.0, 103.0), (inf, 103.0)],
)
def test_what_was_sent_long_ago_is_voided_sooner(ended_at: float, void_at: float) -> None:
    ran = run(World(), ended_at=ended_at)
    assert [at for at, void in ran.ledger.asked if void] == [pytest.approx(void_at, abs=0.011)]
    kept = run(World(), ended_at=ended_at, void=False)
    assert not any(void for _, void in kept.ledger.asked)


def test_a_void_whose_reply_is_lost_is_repeated() -> None:
    lost = tuple((0.01, "") for _ in range(8)) + ((0.01, "reply lost"),) * 3
    ran = run(World(questions=lost), chance=0.0)
    assert known(ran).failed
    assert sum(void for _, void in ran.ledger.asked) >= 2


def test_a_request_that_overtakes_the_void_is_done() -> None:
    ran = run(World(arrives=103.004, runs=0.2))
    outcome = known(ran)
    assert outcome.succeeded


def test_keep_never_voids_and_says_that_absent_proves_nothing() -> None:
    ran = run(World(), void=False)
    outcome = known(ran, void=False)
    assert outcome.unknown
    assert "proves nothing" in str(outcome.error)
    assert not any(void for _, void in ran.ledger.asked)


def test_absent_is_a_fact_only_for_a_question_that_began_after_the_horizon() -> None:
    outcome = known(run(World(), void=False, absent_at=102.0), void=False)
    assert isinstance(outcome.error, Voided)
    slow = ((3.0, ""),) * 20  # begun before, answered after
    outcome = known(
        run(World(questions=slow[:1]), void=False, absent_at=102.0, within=3.0), void=False
    )
    assert outcome.unknown


def test_retry_after_is_waited_for_but_not_past_the_last_phase() -> None:
    later = Answer(Standing.RUNNING, None, 60.0)
    now, asked_at = 100.0, list[float]()
    flow = resolver.resolve(Wanted(KEY, 105.0, void=True), lambda: 0.5, lambda: True, now)
    command: Any = next(flow)
    while command is not None:
        if isinstance(command, Ask):
            asked_at.append(round(now, 3))
        now += 0.0 if isinstance(command, Ask) else command.seconds
        answer = Done(later, None) if isinstance(command, Ask) else None
        try:
            command = flow.send((now, answer))
        except StopIteration:
            command = None
    assert asked_at == [100.0, 103.0]


@pytest.mark.parametrize("error", [KeyTooOld("too old", key=KEY), TypeError("find() takes 0")])
def test_what_no_repetition_mends_ends_it_at_once(error: Exception) -> None:
    flow = resolver.resolve(Wanted(KEY, 105.0, void=True), lambda: 0.5, lambda: True, 100.0)
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send((100.1, Done(None, error)))
    told: Told = end.value.value
    outcome = resolver.settled(_unknown(), told, "pay", within=5.0, void=True)
    assert outcome.unknown
    assert str(error) in str(outcome.error)


def _unknown() -> Outcome[Any]:
    return Outcome(None, TimeoutError("lost"), Certainty.UNKNOWN, 1, 0.1, KEY)


def test_a_ledger_that_is_down_is_asked_again() -> None:
    flow = resolver.resolve(Wanted(KEY, 105.0, void=True), lambda: 0.5, lambda: True, 100.0)
    next(flow)
    assert isinstance(flow.send((100.1, Done(None, LedgerUnavailable("down")))), Wait)


def test_without_time_nothing_is_asked_and_that_is_said() -> None:
    flow = resolver.resolve(Wanted(KEY, 99.0, void=True), lambda: 0.5, lambda: True, 100.0)
    with pytest.raises(StopIteration) as end:
        next(flow)
    outcome = resolver.settled(_unknown(), end.value.value, "pay", within=5.0, void=True)
    assert "no time was left" in str(outcome.error)


def test_a_void_that_finds_a_key_too_old_ends_it() -> None:
    flow = resolver.resolve(Wanted(KEY, 100.001, void=True), lambda: 0.5, lambda: True, 100.0)
    next(flow)
    told = Told(Answer(Standing.ABSENT), None, 2)
    assert resolver._over(told, void=True)
    assert not resolver._over(told, void=False)
    outcome = resolver.settled(_unknown(), told, "pay", within=5.0, void=True)
    assert "nothing is known of a key so old" in str(outcome.error)
