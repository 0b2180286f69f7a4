"""The judge on calls as fast as they can be made: named within few calls, and no alarm for healthy bursts."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brownout import Attempt, Breaker, OutcomeClass, State
from brownout._core.guard import Core
from brownout._core.policy import Policy
from brownout._core.target import Target

OK, FAIL, REFUSED, UNKNOWN, LEFT = (
    OutcomeClass.SUCCESS,
    OutcomeClass.FAILURE,
    OutcomeClass.CONNECT,
    OutcomeClass.UNKNOWN,
    OutcomeClass.CANCELLED,
)
Answer = tuple[float, OutcomeClass]
Service = Callable[["Burst"], Answer]
BACK_TO_BACK_SECONDS = 1e-5
ILL = {State.DEGRADED, State.OVERLOADED, State.UNRESPONSIVE, State.CRASHED}


class Burst:
    """Callers of one guard that call again as soon as they are answered, or `pace` times a second in all."""

    def __init__(
        self,
        seed: int,
        *,
        timeout: float = 1.0,
        callers: int = 1,
        pace: float = inf,
        reads: bool = True,
    ) -> None:
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.timeout = timeout
        self.callers = callers
        self.gap = callers / pace
        self.reads = reads
        self.target = Target("t", threading.Lock, frozenset)
        self.target.timeout = timeout
        policy = Policy("t", timeout=timeout, breaker=Breaker())
        self.core = Core(policy, self.target, threading.Lock, self.chance.random)
        self.operation = self.target.operation("op", self.now)
        self.core.gate(self.operation)
        self.reached = 0

    def run(self, service: Service, calls: int, patience: float = inf) -> list[State | None]:
        """The state after each of so many calls; `reached` counts those that were let through."""
        self.reached = 0
        seen: list[State | None] = []
        began = ended = number = 0
        ahead: list[tuple[float, int, int, Attempt | None, OutcomeClass]] = []
        for caller in range(self.callers):
            number += 1
            begin = self.now + self.gap * caller / self.callers
            heappush(ahead, (begin, number, caller, None, OK))
        while ended < calls:
            at, _, caller, attempt, class_ = heappop(ahead)
            self.now = max(self.now, at)
            number += 1
            if attempt is not None:
                if class_ is OK:
                    self.core.succeed(self.operation, attempt, self.now)
                else:
                    self.core.settle(self.operation, attempt, class_, self.now)
                again = max(self.now + BACK_TO_BACK_SECONDS, attempt.began + self.gap)
            elif began < calls:
                began += 1
                admitted = self.core.admit(self.operation, caller, self.now, inf)
                if isinstance(admitted, Attempt):
                    self.reached += 1
                    end, class_ = self.end(service(self), patience)
                    heappush(ahead, (end, number, caller, admitted, class_))
                    continue
                again = self.now + max(self.gap, BACK_TO_BACK_SECONDS)
            else:
                continue
            ended += 1
            state = self.target.state(self.now) if self.reads else self.operation.state
            seen.append(state)
            heappush(ahead, (again, number, caller, None, OK))
        return seen

    def end(self, answer: Answer, patience: float) -> tuple[float, OutcomeClass]:
        seconds, class_ = answer
        if seconds > min(self.timeout, patience):
            class_ = UNKNOWN if self.timeout <= patience else LEFT
        return self.now + min(seconds, self.timeout, patience), class_


def lognormal(seconds: float, sigma: float = 0.1) -> Service:
    return lambda burst: (seconds * burst.chance.lognormvariate(0.0, sigma), OK)


def failing(share: float, seconds: float, sigma: float = 0.1) -> Service:
    good = lognormal(seconds, sigma)
    return lambda burst: (good(burst)[0], FAIL if burst.chance.random() < share else OK)


def every(number: int, seconds: float) -> Service:
    count = 0

    def service(burst: Burst) -> Answer:
        nonlocal count
        count += 1
        return lognormal(seconds)(burst)[0], OK if count % number else FAIL

    return service


def hung(_: Burst) -> Answer:
    return inf, OK


def first(seen: list[State | None], state: State) -> float:
    """The number of the call after which it was named; infinite if it was not."""
    return next((n for n, one in enumerate(seen, 1) if one is state), inf)


# ------------------------------------------------------------------------- named within few calls


@pytest.mark.parametrize("pace", [inf, 100.0])
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("patience", [0.002, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("calls", [0, 20, 50, 300])
def test_a_hang_reaches_ten_calls_at_any_patience(
    calls: int, patience: float, pace: float, *, reads: bool
) -> None:
    burst = Burst(calls, timeout=patience, pace=pace, reads=reads)
    burst.run(lognormal(0.0002), calls)
    assert State.UNRESPONSIVE in burst.run(hung, 60)
    assert burst.reached <= 10


@pytest.mark.parametrize("patience", [0.002, 0.02, 0.1])
@pytest.mark.parametrize("calls", [20, 50, 300])
def test_a_hang_whose_callers_leave_reaches_ten_calls(calls: int, patience: float) -> None:
    burst = Burst(calls, timeout=inf)
    burst.run(lognormal(0.0002), calls)
    assert State.UNRESPONSIVE in burst.run(hung, 60, patience)
    assert burst.reached <= 10


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("seconds", [1e-5, 0.001, 0.01])
@pytest.mark.parametrize(("number", "calls"), [(5, 300), (3, 200), (3, 100), (2, 20), (2, 0)])
def test_a_share_that_fails_is_named_within_thirty_calls(
    number: int, calls: int, seconds: float, *, reads: bool
) -> None:
    burst = Burst(number, reads=reads)
    burst.run(lognormal(seconds), calls)
    assert first(burst.run(every(number, seconds), 60), State.DEGRADED) <= 30


@pytest.mark.parametrize("pace", [inf, 100.0])
@pytest.mark.parametrize("seconds", [0.004, 0.01])
@pytest.mark.parametrize("calls", [50, 200])
def test_five_times_slower_is_named_within_sixty_calls(
    calls: int, seconds: float, pace: float
) -> None:
    burst = Burst(calls, pace=pace)
    burst.run(lognormal(seconds), calls)
    assert first(burst.run(lognormal(5 * seconds), 60), State.DEGRADED) <= 60


@pytest.mark.parametrize("calls", [0, 50])
def test_a_crash_is_named_within_ten_calls(calls: int) -> None:
    burst = Burst(calls)
    burst.run(lognormal(0.001), calls)
    assert first(burst.run(lambda _: (5e-5, REFUSED), 60), State.CRASHED) <= 10


@pytest.mark.parametrize("seed", range(10))
def test_a_part_that_is_refused_is_no_crash(seed: int) -> None:
    burst = Burst(seed)
    burst.run(lognormal(0.001), 200)
    seen = burst.run(lambda b: (0.001, REFUSED if b.chance.random() < 0.3 else OK), 300)
    assert State.DEGRADED in seen
    assert State.CRASHED not in seen


def test_ten_calls_that_fail_at_one_moment_are_one() -> None:
    burst = Burst(1, callers=10)
    burst.run(lognormal(0.001, 0.0), 500)
    assert not set(burst.run(lambda _: (0.001, FAIL), 10)) & ILL
    assert not set(burst.run(lognormal(0.001, 0.0), 500)) & ILL


# ------------------------------------------------------------------ healthy bursts are not named


def paused(seconds: float, every_seconds: float = 2.0) -> Service:
    """Now and then all calls stand still for a while."""

    def service(burst: Burst) -> Answer:
        answer = 0.002 * burst.chance.lognormvariate(0.0, 0.3)
        began = burst.now // every_seconds * every_seconds + 0.5
        if began <= burst.now < began + seconds:
            answer += began + seconds - burst.now
        elif burst.now < began < burst.now + answer:
            answer += seconds
        return answer, OK

    return service


def cached(burst: Burst) -> Answer:
    return (0.02 if burst.chance.random() < 0.1 else 0.0002), OK


HEALTHY = {
    "heavy tail, 0.3 ms": lognormal(0.0003, 1.0),
    "heavy tail, 2 ms": lognormal(0.002, 1.0),
    "heavy tail, 20 ms": lognormal(0.02, 1.0),
    "a cache that misses": cached,
    "1 % fail from the start": failing(0.01, 0.01),
    "2 % fail from the start": failing(0.02, 0.01),
    "5 % fail from the start": failing(0.05, 0.01),
    "pauses of 50 ms": paused(0.05),
    "pauses of 100 ms": paused(0.1),
    "pauses of 200 ms": paused(0.2),
}


@pytest.mark.parametrize("service", HEALTHY.values(), ids=HEALTHY)
def test_nothing_is_said_of_healthy_bursts(service: Service) -> None:
    for callers, pace, calls in [(1, inf, 600), (10, inf, 1000), (10, 100.0, 600), (1, 1.0, 60)]:
        for seed in range(5):
            burst = Burst(seed, callers=callers, pace=pace, reads=bool(seed % 2))
            assert not set(burst.run(service, calls)) & ILL, (callers, pace, seed)


def test_twice_the_load_is_no_alarm() -> None:
    for seed in range(20):
        burst = Burst(seed, callers=10, pace=100.0)
        burst.run(lognormal(0.01, 0.5), 300)
        burst.callers = 20
        assert not set(burst.run(lognormal(0.01, 0.5), 600)) & ILL


# ------------------------------------------------------------------------------- for any outcomes


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(
        st.tuples(st.sampled_from([OK, OK, FAIL, REFUSED, LEFT]), st.integers(1, 40)), max_size=12
    ),
    seconds=st.sampled_from([1e-5, 0.003, 0.3]),
)
def test_every_verdict_has_a_because(
    script: list[tuple[OutcomeClass, int]], seconds: float
) -> None:
    burst = Burst(1, timeout=0.5)
    for class_, calls in script:
        answer = (inf if class_ is LEFT else seconds, class_)
        burst.run(lambda _, answer=answer: answer, calls)  # type: ignore[misc]
        verdict = burst.target.verdict(burst.now)
        assert verdict.because
        assert verdict.state is burst.target.state(burst.now)
        if verdict.state in ILL:
            assert verdict.kind
            assert 0 < verdict.extent <= 1


@pytest.mark.parametrize("seconds", [0.01, 0.02])
def test_nine_slow_calls_one_after_the_other_are_a_stall_of_the_machine(seconds: float) -> None:
    """Each is a moment of its own, and together they are over before a state may hang on them."""
    for seed in range(1, 4):
        burst = Burst(seed)
        burst.run(lognormal(0.001), 1000)
        seen = burst.run(lognormal(seconds), 9) + burst.run(lognormal(0.001), 300)
        assert not ILL & set(seen)
