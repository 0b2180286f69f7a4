"""The judge on made-up streams of calls: the right name, in time, and silence when nothing is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, log

import pytest

from brownout import Attempt, OutcomeClass, State
from brownout._core.baseline import cold
from brownout._core.because import Claim, Verdict
from brownout._core.modes import modes
from brownout._core.operation import Operation
from brownout._core.words import seconds, share

Answer = tuple[float, OutcomeClass]
Service = Callable[[random.Random], Answer]
OK, FAIL, SHED, REFUSED = (
    OutcomeClass.SUCCESS,
    OutcomeClass.FAILURE,
    OutcomeClass.OVERLOAD,
    OutcomeClass.CONNECT,
)
TIMEOUT = 0.5
HUNG = (inf, OutcomeClass.UNKNOWN)


@dataclass
class Stream:
    """Open-loop calls of one operation under a fake clock, folded ten times a second."""

    seed: int = 1
    now: float = 0.0
    timeout: float = TIMEOUT
    label: Callable[[], dict[str, str]] = dict  # of the next call
    of: dict[str, Service] = field(default_factory=dict)  # by a value of a label
    flying: list[tuple[float, int, Attempt, OutcomeClass]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.operation = Operation("get", self.timeout, 0.0)

    def run(self, service: Service, rate: float, span: float) -> list[tuple[float, State | None]]:
        """Changes of state as (seconds since the start of this run, state)."""
        start, shard = self.now, self.operation.evidence.shard(1)
        changes: list[tuple[float, State | None]] = []
        arrival = start + (self.chance.expovariate(rate) if rate else inf)
        fold, state, number = start + 0.1, self.operation.state, 0
        while self.now < start + span:
            end = self.flying[0][0] if self.flying else inf
            self.now = min(arrival, fold, end)
            if self.now == end:
                _, _, attempt, class_ = heappop(self.flying)
                shard.settle(attempt, class_, self.now)
            elif self.now == arrival:
                labels = self.label()
                serves = next((self.of[v] for v in labels.values() if v in self.of), service)
                latency, class_ = serves(self.chance)
                if latency > self.timeout:
                    latency, class_ = self.timeout, OutcomeClass.UNKNOWN
                attempt = Attempt(shard, self.now, self.now + self.timeout)
                if labels:
                    attempt.label(**labels)
                shard.pending[attempt] = None
                number += 1
                heappush(self.flying, (self.now + latency, number, attempt, class_))
                arrival = self.now + self.chance.expovariate(rate)
            else:
                self.operation.fold(self.now)
                fold = self.now + 0.1
                if self.operation.state is not state:
                    state = self.operation.state
                    changes.append((self.now - start, state))
        return changes

    @property
    def verdict(self) -> Verdict:
        return self.operation.verdict("svc", Claim(True, self.now - 0.4))


def healthy(chance: random.Random) -> Answer:
    latency = chance.lognormvariate(log(0.02), 0.5) * (5 if chance.random() < 0.01 else 1)
    return latency, FAIL if chance.random() < 0.002 else OK


def slower(factor: float) -> Service:
    def service(chance: random.Random) -> Answer:
        latency, class_ = healthy(chance)
        return latency * factor, class_

    return service


def some(part: float, instead: Answer) -> Service:
    return lambda chance: instead if chance.random() < part else healthy(chance)


def hump(chance: random.Random) -> Answer:
    return (0.3 + 0.05 * chance.random(), OK) if chance.random() < 0.3 else healthy(chance)


@pytest.fixture(scope="module", params=[1, 2])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


CASES = [
    # what happens, calls/s, right name, within seconds, what the sentence must say
    ("5 % fail", some(0.05, (0.01, FAIL)), 100, State.DEGRADED, 5.0, "of calls fail"),
    ("30 % fail", some(0.3, (0.01, FAIL)), 100, State.DEGRADED, 1.0, "of calls fail"),
    ("all fail", some(1.0, (0.01, FAIL)), 100, State.DEGRADED, 1.0, "of calls fail"),
    ("5 times slower", slower(5), 100, State.DEGRADED, 1.5, "load does not explain it"),
    ("a second hump", hump, 100, State.DEGRADED, 1.5, "of calls answer in"),
    ("40 % hang", some(0.4, HUNG), 100, State.DEGRADED, 1.5, "got no answer"),
    ("20 % refused", some(0.2, (0.001, REFUSED)), 100, State.DEGRADED, 1.0, "refused at once"),
    ("36 % shed", some(0.36, (0.001, SHED)), 150, State.OVERLOADED, 1.0, "turned away"),
    ("more load, slower", slower(5), 160, State.OVERLOADED, 2.5, "more load than usual"),
    ("all hang", some(1.0, HUNG), 100, State.UNRESPONSIVE, 1.5, "was answered"),
    ("90 % hang", some(0.9, HUNG), 100, State.UNRESPONSIVE, 2.0, "got no answer"),
    ("crash", some(1.0, (0.001, REFUSED)), 100, State.CRASHED, 0.6, "nobody listens"),
    ("crash, few calls", some(1.0, (0.001, REFUSED)), 10, State.CRASHED, 3.0, "nobody listens"),
]


@pytest.mark.parametrize(
    ("service", "rate", "state", "within", "says"),
    [c[1:] for c in CASES],
    ids=[c[0] for c in CASES],
)
def test_the_right_name_in_time_and_back(
    service: Service, rate: float, state: State, within: float, says: str, seed: int
) -> None:
    stream = Stream(seed)
    assert [s for _, s in stream.run(healthy, 100 if rate > 10 else rate, 30)] == [State.HEALTHY]
    if rate <= 10:
        stream.run(healthy, rate, 60)
    changes = stream.run(service, rate, 8)
    assert changes, "it was never seen"
    assert changes[-1][1] is state
    assert changes[-1][0] <= within
    verdict = stream.verdict
    assert says in verdict.because
    assert "its own health check said ok 0." in verdict.because
    assert verdict.contradiction
    back = stream.run(healthy, 100, 10)
    assert back
    assert back[-1][1] is State.HEALTHY
    assert back[-1][0] <= 6.0


@pytest.mark.parametrize("rate", [1, 10, 100])
def test_nothing_is_said_of_healthy_calls(rate: int, seed: int) -> None:
    span = {1: 3000, 10: 1200, 100: 240}[rate]
    stream = Stream(seed)
    # One call a second is hardly evidence: at times there is none.
    allowed = {State.HEALTHY, None} if rate == 1 else {State.HEALTHY}
    assert {state for _, state in stream.run(healthy, rate, span)} <= allowed


def test_a_stall_of_all_calls_for_a_moment_is_no_alarm(seed: int) -> None:
    stream = Stream(seed)
    stream.run(healthy, 100, 30)
    for _ in range(10):  # 100 ms in which whatever begins is held up
        assert stream.run(lambda _: (0.15, OK), 100, 0.1) == []
        assert stream.run(healthy, 100, 10) == []


def steady(chance: random.Random) -> Answer:
    return 0.04 + 0.01 * chance.random(), OK


@pytest.mark.parametrize("usual", [healthy, steady])
def test_a_slow_target_that_answers_is_not_called_unresponsive(usual: Service, seed: int) -> None:
    stream = Stream(seed, timeout=0.9)
    stream.run(usual, 50, 30)
    states = {state for _, state in stream.run(lambda _: (0.42, OK), 50, 10)}
    assert states == {State.DEGRADED}


def test_impatient_callers_are_no_evidence_against_a_healthy_target(seed: int) -> None:
    stream = Stream(seed)
    stream.run(healthy, 100, 30)
    left = (0.005, OutcomeClass.CANCELLED)
    assert stream.run(some(0.9, left), 100, 20) == []


def test_a_hang_is_seen_without_a_usual_and_without_another_call() -> None:
    stream = Stream()
    stream.run(some(1.0, HUNG), 100, 0.25)
    assert stream.run(some(1.0, HUNG), 0, 2.0)[-1][1] is State.UNRESPONSIVE


def test_few_calls_are_no_evidence_and_a_forgotten_target_has_none() -> None:
    stream = Stream()
    stream.run(healthy, 1, 10)
    assert stream.operation.state is None
    assert "20 are needed" in stream.verdict.because
    stream.run(some(1.0, (0.001, REFUSED)), 10, 3)
    assert stream.operation.state is State.CRASHED
    stream.run(healthy, 0, 35)
    assert stream.operation.state is None


def test_a_long_failure_is_not_learned_as_usual(seed: int) -> None:
    stream = Stream(seed)
    stream.run(healthy, 100, 30)
    stream.run(slower(4), 100, 120)
    assert stream.operation.state is State.DEGRADED
    assert stream.operation.usual.baseline.p50 < 0.03


def test_a_mode_is_a_distribution() -> None:
    base = cold(1.0)
    table, nulls = modes(base)
    for log_p in [mode.log_p for mode in table] + nulls:
        assert sum(2.718281828459045**x for x in log_p[:9]) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0062, "6.2 ms"), (0.0421, "42 ms"), (0.25, "0.25 s"), (12.3, "12 s"), (inf, "never")],
)
def test_spans_read_well(value: float, text: str) -> None:
    assert seconds(value) == text


def test_shares_read_well() -> None:
    assert [share(1, 250), share(27, 100), share(0, 5), share(1, 0)] == [
        "0.4 %",
        "27 %",
        "0 %",
        "0 %",
    ]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_over_when_it_is_over(seed: int) -> None:
    stream = Stream(seed, timeout=0.3)
    stream.run(steady, 50, 30)
    stream.run(lambda chance: HUNG if chance.random() < 0.3 else steady(chance), 50, 7)
    assert stream.operation.state is State.DEGRADED
    back = stream.run(steady, 50, 6)
    assert back[-1][1] is State.HEALTHY
    assert back[-1][0] <= 2.5  # while the last two seconds still hold bad calls, it steps down


@pytest.mark.parametrize("seed", range(8))
def test_silence_is_not_over_because_nobody_calls(seed: int) -> None:
    stream = Stream(seed, timeout=0.3)
    stream.run(steady, 50, 30)
    stream.run(lambda _: HUNG, 50, 1.2)
    assert stream.operation.state is State.UNRESPONSIVE
    assert stream.run(steady, 0, 5) == []  # the breaker is open


@pytest.mark.parametrize("rate", [1, 10])
def test_few_answers_do_not_make_it_flicker(rate: int, seed: int) -> None:
    stream = Stream(seed)
    stream.run(healthy, 100, 30)
    stream.run(healthy, rate, 60)
    stream.run(some(1.0, HUNG), rate, 20 / rate + 2)
    assert stream.operation.state is State.UNRESPONSIVE
    assert len(stream.run(some(0.9, HUNG), rate, 400 / rate)) <= 6
    stream.run(some(0.4, HUNG), rate, 20 / rate)
    assert stream.operation.state is not State.UNRESPONSIVE  # a breaker would end what works again
    states = {state for _, state in stream.run(some(0.4, HUNG), rate, 200 / rate)}
    assert State.UNRESPONSIVE not in states


@pytest.mark.parametrize(
    ("bad", "within"), [((0.01, FAIL), 5.0), (HUNG, 4.0)], ids=["fail", "hang"]
)
@pytest.mark.parametrize("seed", [3, 7, 10])
def test_a_stray_bad_call_does_not_make_it_last(bad: Answer, within: float, seed: int) -> None:
    stream = Stream(seed)
    stream.run(healthy, 100, 60)
    stream.run(some(0.05, bad), 100, 20)
    assert stream.operation.state is State.DEGRADED
    back = stream.run(healthy, 100, 20)
    assert back[-1][1] is State.HEALTHY
    assert back[-1][0] <= within
