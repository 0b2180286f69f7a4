"""The driver for virtual time: many calls at once, in no time."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any

from brownout import BreakerOpen, Guard, LimitReached, Retry, State, TimedOut
from brownout._drive.virtual import Virtual

if TYPE_CHECKING:
    from brownout._core.flow import Done
    from brownout.testing import FakeClock

Ending = tuple[float, Any, BaseException | None]


def test_calls_overlap_up_to_the_limit(clock: FakeClock) -> None:
    guard, world, told = Guard("t", limit=3), Virtual(clock.now()), list["Done"]()
    options = guard._options(lambda: None, "op")

    def ending() -> Ending:
        return 1.0, "ok", None

    for n in range(5):
        start = clock.now() + n * 0.1
        world.at(start, lambda: world.call(guard._core, options, ending, told.append))
    world.run(until=clock.now() + 0.5)
    assert [type(done.error) for done in told] == [LimitReached] * 2
    world.run()
    assert [done.value for done in told[2:]] == ["ok"] * 3
    assert world.now() == clock.now() + 1.2


def test_a_time_out_a_hang_and_a_fallback(clock: FakeClock) -> None:
    world = Virtual(clock.now())

    def ended(guard: Guard, ending: Ending, deadline: float = inf) -> list[Any]:
        told: list[Any] = []
        options = guard._options(lambda: None, "op")
        world.call(guard._core, options, lambda: ending, told.append, deadline)
        world.run()
        return told

    began = world.now()
    (done,) = ended(Guard("a", timeout=0.5), (inf, None, None))
    assert isinstance(done.error, TimedOut)
    assert world.now() == began + 0.5
    assert ended(Guard("b"), (inf, None, None)) == []  # nothing ends it
    no = ConnectionRefusedError(111, "no")
    (done,) = ended(Guard("c", retry=Retry(budget=1.0), fallback=lambda: "spare"), (0.1, None, no))
    assert (done.value, done.error) == ("spare", None)
    (done,) = ended(Guard("d", fallback=lambda: 1 / 0), (0.1, None, no))
    assert isinstance(done.error, ZeroDivisionError)


def test_an_hour_with_ten_minutes_of_silence(clock: FakeClock) -> None:
    """72,000 calls, each admitted one settled; named within seconds, well within two windows."""
    guard, world, chance = Guard("t", timeout=0.5), Virtual(clock.now()), random.Random(1)
    options, told = guard._options(lambda: None, "op"), list["Done"]()
    began, reached, states = world.now(), list[float](), dict[int, State | None]()

    def ending() -> Ending:
        reached.append(world.now() - began)
        if 600 <= reached[-1] < 1200:
            return inf, None, None
        return chance.lognormvariate(-4, 0.3), "ok", None

    for n in range(72_000):
        start = began + n * 0.05
        world.at(start, lambda: world.call(guard._core, options, ending, told.append))
    for minute in (590, 610, 1190, 1260, 3590):
        world.run(until=began + minute)
        states[minute] = guard._target.state(world.now())
    world.run()
    assert states == {
        590: State.HEALTHY,
        610: State.UNRESPONSIVE,
        1190: State.UNRESPONSIVE,
        1260: State.HEALTHY,
        3590: State.HEALTHY,
    }
    assert len(told) == 72_000
    assert sum(isinstance(done.error, BreakerOpen) for done in told) == 72_000 - len(reached)
    assert sum(610 <= at < 1200 for at in reached) < 200  # of 11,800
    assert guard._target.operations["op"].evidence.in_flight == 0
