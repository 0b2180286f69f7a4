"""A function that returns, or raises, at once: a part that fails is named in time, and never made total."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import pytest

from brownout import Guard, Refused, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.testing import FakeClock

CALLS = 200
STEP_SECONDS = 5e-6  # such a call costs about as much
NEVER = CALLS + 1


class Run(NamedTuple):
    """What one guard's calls showed."""

    named: int
    refused: int
    states: set[State | None]
    again: bool  # HEALTHY after it was named


def run(
    guard: Guard,
    error: Exception,
    share: float,
    warm: int,
    seed: int,
    advance: Callable[[float], None],
    calls: int = CALLS,
) -> Run:
    """Well, then failing by chance; the state is read after each call."""
    chance, ill = random.Random(seed), False

    @guard
    def price() -> float:
        advance(STEP_SECONDS)
        if ill and chance.random() < share:
            raise error
        return 9.99

    for _ in range(warm):
        price()
        advance(STEP_SECONDS)
    ill = True
    named, refused, again, states = NEVER, 0, False, set[State | None]()
    for number in range(1, calls + 1):
        try:
            price()
        except Refused:
            refused += 1
        except type(error):
            pass
        advance(STEP_SECONDS)
        state = guard.state
        states.add(state)
        if state not in {None, State.HEALTHY}:
            named = min(named, number)
        elif named < NEVER:
            again = True
    return Run(named, refused, states, again)


def bounds(share: float, warm: int) -> tuple[int, int]:
    """Within so many calls half of all runs are named, and nine of ten."""
    if share > 0.2:
        return 30, 70
    return (40, 70) if warm >= 200 else (80, NEVER)


@pytest.mark.parametrize("warm", [0, 20, 50, 200, 1000])
@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("error", [TimeoutError("x"), ConnectionResetError("x")])
def test_a_part_that_fails_is_named_and_never_made_total(
    clock: FakeClock, error: Exception, share: float, warm: int
) -> None:
    runs = [
        run(Guard(f"t{seed}", timeout=0.5), error, share, warm, seed, clock.advance)
        for seed in range(12)
    ]
    assert set().union(*(one.states for one in runs)) <= {None, State.HEALTHY, State.DEGRADED}
    assert not any(one.refused for one in runs)
    assert sum(one.again for one in runs) <= 1
    named = sorted(one.named for one in runs)
    half, most = bounds(share, warm)
    assert median(named) <= half
    assert named[-2] <= most


@pytest.mark.parametrize("warm", [0, 20, 200])
def test_all_that_time_out_at_once_are_silence(clock: FakeClock, warm: int) -> None:
    told = run(Guard("t", timeout=0.5), TimeoutError("x"), 1.0, warm, 1, clock.advance, 60)
    assert State.UNRESPONSIVE in told.states
    assert 60 - told.refused <= 10


@pytest.mark.parametrize("warm", [0, 20, 200])
def test_all_that_are_refused_are_a_crash(clock: FakeClock, warm: int) -> None:
    error = ConnectionRefusedError(111, "refused")
    told = run(Guard("t", timeout=0.5), error, 1.0, warm, 1, clock.advance, 60)
    assert State.CRASHED in told.states
    assert 60 - told.refused <= 10


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_a_few_errors_from_the_start_are_the_usual(clock: FakeClock, share: float) -> None:
    for seed in range(5):
        guard = Guard(f"t{seed}", timeout=0.5)
        told = run(guard, TimeoutError("x"), share, 0, seed, clock.advance, 1000)
        assert told.states <= {None, State.HEALTHY}


def test_a_time_out_that_is_told_at_once_is_silence(clock: FakeClock) -> None:
    """Sooner than any timer: no caller was impatient."""
    guard = Guard("t", timeout=0.5)
    run(guard, TimeoutError("x"), 0.0, 200, 1, lambda step: clock.advance(1000 * step), 1)
    told = run(guard, TimeoutError("x"), 1.0, 0, 1, lambda step: clock.advance(100 * step), 60)
    assert State.UNRESPONSIVE in told.states
    assert 60 - told.refused <= 10


def test_errors_of_before_do_not_delay_the_name(clock: FakeClock) -> None:
    """They have used up the folds that may come ahead of their time."""
    for seed in range(5):
        guard = Guard(f"t{seed}", timeout=0.5)
        run(guard, RuntimeError("x"), 0.03, 0, seed, clock.advance, 2000)
        assert run(guard, RuntimeError("x"), 1.0, 0, seed, clock.advance, 60).named <= 40


def test_in_real_time_half_of_the_calls_stay_answered() -> None:
    """As above, with the machine's own pauses."""
    for seed in range(5):
        guard = Guard(f"t{seed}", timeout=0.5)
        told = run(guard, TimeoutError("x"), 0.5, 200, seed, lambda _: None)
        assert told.named <= 60
        assert told.states <= {None, State.HEALTHY, State.DEGRADED}
        assert not told.refused


def test_in_real_time_healthy_calls_are_no_alarm() -> None:
    guard, end = Guard("t", timeout=0.5), time.monotonic() + 1.0
    price = guard(lambda: 9.99)
    while time.monotonic() < end:
        price()
        assert not guard.at_least(State.DEGRADED)
