"""The operations of a live target that are seldom called, judged as one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf

import pytest

from brownout import Attempt, OutcomeClass, State, Verdict
from brownout._core.target import Target

OK = OutcomeClass.SUCCESS
Answer = tuple[float, OutcomeClass]
Service = Callable[[str, random.Random], Answer]
TIMEOUT = 3.0
HUNG = (TIMEOUT, OutcomeClass.UNKNOWN)


def well(operation: str, chance: random.Random) -> Answer:
    """Each operation has a usual of its own: 20 ms to 100 ms."""
    return 0.02 * int(operation) * chance.lognormvariate(0.0, 0.4), OK


def slow(operation: str, chance: random.Random) -> Answer:
    return 5 * well(operation, chance)[0], OK


def fails(operation: str, chance: random.Random) -> Answer:
    return (0.02, OutcomeClass.FAILURE) if chance.random() < 0.3 else well(operation, chance)


def hangs(_operation: str, _chance: random.Random) -> Answer:
    return HUNG


class Calls:
    """Open-loop calls of five operations of one target, folded ten times a second."""

    def __init__(self, seed: int, rate: float = 0.5) -> None:
        self.rate = rate
        self.chance = random.Random(seed)
        self.target = Target("db", threading.Lock, lambda: frozenset({1}))
        self.target.timeout = TIMEOUT
        self.now = 0.0
        self.flying: list[tuple[float, int, str, Attempt, OutcomeClass]] = []
        self.number = 0

    def run(self, service: Service, span: float, rate: float = -1.0) -> list[tuple[float, Verdict]]:
        """Changes of state as (seconds since the start of this run, verdict)."""
        rate = self.rate if rate < 0 else rate
        start, state, changes = self.now, self.target.state(self.now), []
        arrivals = [(start + self._gap(rate), str(number)) for number in range(1, 6)]
        heapify(arrivals)
        fold = start + 0.1
        while self.now < start + span:
            end = self.flying[0][0] if self.flying else inf
            self.now = min(fold, end, arrivals[0][0])
            if self.now == end:
                _, _, name, attempt, class_ = heappop(self.flying)
                self._shard(name).settle(attempt, class_, self.now)
            elif self.now == fold:
                fold = self.now + 0.1
                if self.target.state(self.now) is not state:
                    state = self.target.state(self.now)
                    changes.append((self.now - start, self.target.verdict(self.now)))
            else:
                _, name = heappop(arrivals)
                heappush(arrivals, (self.now + self._gap(rate), name))
                self._start(name, service)
        return changes

    def _gap(self, rate: float) -> float:
        return self.chance.expovariate(rate) if rate else inf

    def _shard(self, name: str):  # type: ignore[no-untyped-def] # noqa: ANN202 - a core's own
        return self.target.operation(name, self.now).evidence.shard(1)

    def _start(self, name: str, service: Service) -> None:
        took, class_ = service(name, self.chance)
        shard = self._shard(name)
        attempt = Attempt(shard, self.now, self.now + TIMEOUT)
        shard.pending[attempt] = None
        self.number += 1
        heappush(self.flying, (self.now + took, self.number, name, attempt, class_))

    @property
    def alone(self) -> list[State | None]:
        """What each operation shows by itself."""
        return [one.state for one in self.target.operations.values()]


@pytest.fixture(params=[3, 5])
def calls(request: pytest.FixtureRequest) -> Calls:
    made = Calls(request.param)
    assert [verdict.state for _, verdict in made.run(well, 300)] == [State.HEALTHY]
    return made


@pytest.mark.parametrize(
    ("service", "state", "within"),
    [(hangs, State.UNRESPONSIVE, 4.0), (fails, State.DEGRADED, 15.0), (slow, State.DEGRADED, 6.0)],
)
def test_what_seldom_calls_show_adds_up(
    calls: Calls, service: Service, state: State, within: float
) -> None:
    began = calls.now
    changes = calls.run(service, within)
    at, verdict = next(change for change in changes if change[1].state is state)
    assert verdict.because.startswith("its operations together: ")
    assert began - 1.0 <= verdict.since <= began + at
    assert calls.run(well, 400)[-1][1].state is State.HEALTHY


def test_one_that_is_ill_alone_says_nothing_of_the_others(calls: Calls) -> None:
    def one(operation: str, chance: random.Random) -> Answer:
        return HUNG if operation == "3" else well(operation, chance)

    calls.run(one, 60)
    verdicts = calls.target.verdicts(calls.now)
    assert verdicts[0].operation == "3"
    assert "together" not in verdicts[0].because
    assert all(verdict.state in {None, State.HEALTHY} for verdict in verdicts[1:])


def test_they_are_healthy_together_where_each_alone_is_too_seldom_called() -> None:
    calls = Calls(4, rate=0.2)
    calls.run(well, 60)
    assert not any(calls.alone)
    verdict = calls.target.verdict(calls.now)
    assert verdict.state is State.HEALTHY
    assert "are right" in verdict.because
    calls.run(well, 60, rate=0.0)
    assert calls.target.state(calls.now) is None
    assert calls.target.verdict(calls.now).because.startswith("no evidence")


def test_such_time_is_not_learned_as_usual(calls: Calls) -> None:
    known = {name: one.usual.baseline.p50 for name, one in calls.target.operations.items()}
    calls.run(slow, 100)
    assert calls.target.verdict(calls.now).state is State.DEGRADED
    for name, one in calls.target.operations.items():
        assert one.usual.baseline.p50 == pytest.approx(known[name], rel=0.3)


def test_who_is_called_often_is_judged_alone() -> None:
    calls = Calls(5, rate=25.0)
    calls.run(well, 20)
    operations = list(calls.target.operations.values())
    calls.run(hangs, 2)
    assert all(one.judge.finding for one in operations)
    assert not calls.target.whole.ill


def test_what_was_gathered_is_forgotten_when_the_target_is_another() -> None:
    calls = Calls(1)
    calls.run(well, 300)
    calls.run(hangs, 4)
    assert calls.target.whole.ill
    calls.target.relearn(calls.now, None, None)
    assert not calls.target.whole.ill
    calls.target.renew(threading.Lock, calls.now)
    assert calls.target.state(calls.now) is None
