"""Our own trouble: a loop that stands still, or a process that gets no turn, is no fault of the target."""

from __future__ import annotations

import asyncio
import threading
import time
from math import inf
from typing import TYPE_CHECKING

import pytest

import brownout
from brownout import Guard, State, TimedOut, states, watch
from brownout._core.late import Lateness
from brownout._drive.stall import process
from tests.seen import until

if TYPE_CHECKING:
    from brownout.testing import FakeClock

# ------------------------------------------------------------------------------- the reckoning


def test_a_beat_that_comes_in_time_is_no_stall() -> None:
    late = Lateness(0.01)
    late.expect(1.0, 0.9)
    assert late.lost(0.0, 1.01) == 0.0
    late.beat(1.01)
    assert late.until == -inf
    assert late.lost(0.0, 50.0) == 0.0


def test_a_stall_is_what_lies_between_the_beat_and_its_coming() -> None:
    late = Lateness(0.01)
    late.expect(1.0, 1.0)
    assert late.lost(0.0, 1.5) == pytest.approx(0.5)  # it has not come yet
    assert late.lost(1.2, 1.5) == pytest.approx(0.3)
    late.beat(2.0)
    assert late.lost(0.0, 9.0) == pytest.approx(1.0)
    assert late.lost(1.5, 9.0) == pytest.approx(0.5)
    assert late.lost(0.0, 1.25) == pytest.approx(0.25)
    assert late.lost(2.0, 9.0) == 0.0
    late.expect(3.0, 3.0)
    assert late.lost(0.0, 4.0) == pytest.approx(2.0)


def test_it_began_somewhere_before_the_beat_that_was_missed() -> None:
    late = Lateness(0.01)
    late.expect(1.05, 1.0)
    assert late.lost(0.0, 1.07) == pytest.approx(0.04)
    assert late.lost(0.0, 2.0) == pytest.approx(1.0)  # and not before it was last known to run


def test_where_nothing_is_in_flight_nothing_is_late() -> None:
    late = Lateness()
    late.expect(1.0, 0.9)
    late.busy = lambda: False
    assert late.lost(0.0, 100.0) == 0.0


def test_of_many_stalls_the_last_are_remembered() -> None:
    late = Lateness(0.01)
    for second in range(1000):
        late.expect(float(second), float(second))
        late.beat(second + 0.5)
    assert late.lost(990.0, 1000.0) == pytest.approx(5.0)


# ----------------------------------------------------------------------------- in virtual time


def p99(guard: Guard) -> float:
    return guard.verdict.number("p99_seconds")


async def steady(guard: Guard, seconds: float, clock: FakeClock, *, rate: float = 50) -> None:
    async def one() -> None:
        try:
            await guard.acall(asyncio.sleep, 0.01, operation="read")
        except TimedOut:
            pass

    end = clock.now() + seconds
    async with asyncio.TaskGroup() as group:
        while clock.now() < end:
            group.create_task(one())
            await asyncio.sleep(1 / rate)


@pytest.mark.parametrize("timeout", [0.5, inf])
def test_a_blocked_loop_is_not_the_target_s_time(clock: FakeClock, timeout: float) -> None:
    guard = Guard("t", timeout=timeout, breaker=None)
    seen: set[State | None] = set()

    async def main() -> None:
        await steady(guard, 20, clock)
        learned = guard._target.operations["read"].usual.baseline.n
        assert learned > 80
        for _ in range(10):
            running = asyncio.create_task(steady(guard, 2, clock))
            await asyncio.sleep(0.505)
            clock.advance(2.0)  # the loop stands still, five calls are in flight
            await running
            seen.add(guard.state)
            assert guard.state is State.HEALTHY, guard.verdict.because

    clock.run(main())
    assert seen == {State.HEALTHY}
    assert p99(guard) < 0.05


def test_a_hang_is_seen_all_the_same(clock: FakeClock) -> None:
    """A loop that stands still for half of the time does not hide a target that says nothing."""
    guard = Guard("t", timeout=60.0, breaker=None)
    seen: list[State | None] = []

    async def main() -> None:
        await steady(guard, 20, clock)
        tasks = [
            asyncio.create_task(guard.acall(asyncio.Event().wait, operation="read"))
            for _ in range(30)
        ]
        for _ in range(40):
            await asyncio.sleep(0.1)
            clock.advance(0.1)
            seen.append(guard.state)
        assert seen[-1] in {State.DEGRADED, State.UNRESPONSIVE}
        assert guard.verdict.kind == "silent"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main())


def test_late_ticks_are_not_learned(clock: FakeClock) -> None:
    guard = Guard("t", breaker=None)

    async def main() -> None:
        await steady(guard, 40, clock)
        usual = guard._target.operations["read"].usual
        well = guard._target.calls
        for _ in range(100):
            call = asyncio.create_task(guard.acall(asyncio.sleep, 0.01, operation="read"))
            await asyncio.sleep(0.005)
            clock.advance(0.3)
            await call
            assert guard.state is State.HEALTHY
        assert well / 3 < sum(usual._classes) <= well

    clock.run(main())


# ------------------------------------------------------------------------------- for real


def seen_meanwhile(guards: list[Guard], stop: threading.Event, found: list[str]) -> None:
    while not stop.wait(0.02):
        for guard in guards:
            verdict = guard.verdict
            if verdict.state not in {None, State.HEALTHY}:
                found.append(f"{verdict.state} {verdict.because}")


def test_a_really_blocked_loop_names_no_target_and_says_what_it_is() -> None:
    """Another thread looks all the time, also while the loop stands still."""
    guards = [Guard(f"t{n}", timeout=1.0) for n in range(3)]
    stop = threading.Event()
    found: list[str] = []
    own: list[str] = []
    watch()
    looker = threading.Thread(target=seen_meanwhile, args=(guards, stop, found))

    async def calls(guard: Guard) -> None:
        for _ in range(60):
            await guard.acall(asyncio.sleep, 0.005, operation="read")

    async def main() -> None:
        await asyncio.gather(*(calls(guard) for guard in guards for _ in range(4)))
        looker.start()
        for seconds in (0.6, 1.5):  # the second is longer than the time-out
            running = [asyncio.create_task(calls(guard)) for guard in guards for _ in range(4)]
            await asyncio.sleep(0.1)
            time.sleep(seconds)  # noqa: ASYNC251 - this is the trouble
            await asyncio.sleep(0.02)
            own.append(guards[0].verdict.own)
            await asyncio.gather(*running, return_exceptions=True)

    try:
        asyncio.run(main())
    finally:
        stop.set()
        looker.join()
    assert found == []
    assert all(guard.state is State.HEALTHY for guard in guards)
    assert all(text.startswith("this process itself stood still for ") for text in own)


def test_a_process_that_gets_no_turn_is_late_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard("t")
    for _ in range(30):
        guard.call(lambda: None, operation="read")
    process.expect(time.monotonic() - 1.0, time.monotonic() - 1.0)
    try:
        guard.call(time.sleep, 0.01, operation="read")
        (shard,) = guard._target.operations["read"].evidence.shards.values()
        assert shard.late is process
        assert guard.verdict.number("p99_seconds") < 0.005
        assert guard.verdict.own
    finally:
        process.beat(time.monotonic())
        process._stalls.clear()
        process.until = -inf


# ------------------------------------------------------------------ the pool, and many at once


def test_a_call_that_waits_for_our_own_pool_is_told(clock: FakeClock) -> None:
    guard = Guard("t")
    with guard.attempt("read") as attempt:
        attempt.waiting()
        clock.advance(0.5)
        verdict = guard.verdict
        assert verdict.own == "a call has waited 0.5 s for our own pool, and was not sent yet"
        attempt.waited(0.5)
    clock.advance(0.2)
    assert guard.verdict.own == ""


def refused() -> None:
    raise ConnectionRefusedError(111, "no")


def crash(names: list[str]) -> None:
    for name in names:
        guard = Guard(name, breaker=None)
        for _ in range(60):
            with pytest.raises(ConnectionRefusedError):
                guard.call(refused)
        assert guard.at_least(State.DEGRADED)


def test_many_unrelated_targets_at_once_are_blamed_on_this_process() -> None:
    crash(["db", "cache"])
    assert {one.own for one in states()} == {""}
    crash(["mail"])
    (own,) = {one.own for one in states()}
    assert own.startswith("3 of the 3 targets of this process look ill to it since one moment")
    assert all(one.because.endswith(f"look at this process first: {own}") for one in states())


def test_one_after_the_other_they_are_not(clock: FakeClock) -> None:
    for name in ("db", "cache", "mail"):
        crash([name])
        clock.advance(4.0)
    assert {one.own for one in states()} == {""}


def test_a_change_says_it_too() -> None:
    found: list[str] = []
    brownout.on_change(lambda change: found.append(change.verdict.own))
    crash(["db", "cache", "mail", "geo"])
    until(lambda: any("look ill to it since one moment" in own for own in found))
