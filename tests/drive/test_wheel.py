"""One timer a loop, idle when nothing waits, gone with the loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Guard, TimedOut
from brownout._drive import wheel as wheels
from brownout._drive.wheel import SLOT_SECONDS, Wheel

if TYPE_CHECKING:
    from brownout.testing import FakeClock


def timers() -> list[asyncio.TimerHandle]:
    """The timers of the wheel that the running loop has scheduled."""
    loop: Any = asyncio.get_running_loop()
    return [
        handle
        for handle in loop._scheduled
        if not handle._cancelled and isinstance(getattr(handle._callback, "__self__", None), Wheel)
    ]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def ended_after(guard: Guard, clock: FakeClock) -> float:
    began = clock.now()
    with pytest.raises(TimedOut):
        await guard.acall(forever)
    return clock.now() - began


def test_thousands_of_attempts_share_one_timer(clock: FakeClock) -> None:
    guards = [Guard(f"t{i}", timeout=0.05 + 0.037 * i, breaker=None) for i in range(20)]

    async def main() -> None:
        tasks = [
            asyncio.create_task(ended_after(guard, clock)) for guard in guards for _ in range(100)
        ]
        await asyncio.sleep(0)
        assert len(timers()) == 1
        took = await asyncio.gather(*tasks)
        for index, guard in enumerate(guards):
            timeout = guard.policy.timeout
            mine = took[index * 100 : index * 100 + 100]
            assert timeout <= min(mine)
            assert max(mine) <= timeout + 2 * SLOT_SECONDS
        assert timers() == []

    clock.run(main())


def test_a_shorter_time_is_not_kept_waiting_by_a_longer_one(clock: FakeClock) -> None:
    long, short = Guard("long", timeout=5.0), Guard("short", timeout=0.1)

    async def main() -> None:
        slow = asyncio.create_task(ended_after(long, clock))
        await asyncio.sleep(0)
        assert await ended_after(short, clock) < 0.13
        assert await slow < 5.03

    clock.run(main())


def test_it_is_idle_when_nothing_waits(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.5)

    async def main() -> None:
        for _ in range(3):
            await guard.acall(asyncio.sleep, 0.1)
        assert len(timers()) <= 1
        await asyncio.sleep(1.0)
        assert timers() == []
        assert await ended_after(guard, clock) < 0.53  # and it starts again

    clock.run(main())


def test_attempts_that_have_ended_are_forgotten(clock: FakeClock) -> None:
    """An hour's time-out and steady traffic must not keep a slot for each 10 ms of the hour."""
    guard = Guard("t", timeout=3600.0, breaker=None)
    short = Guard("short", timeout=0.05, breaker=None)

    async def main() -> None:
        found = wheels.wheel(asyncio.get_running_loop())
        most = 0

        async def calls() -> None:
            nonlocal most
            for _ in range(1000):
                await guard.acall(asyncio.sleep, 0.2)
                most = max(most, len(found.slots))

        async def ticks() -> None:
            for _ in range(1000):  # the timer fires all the time, so that the long ones get slots
                await ended_after(short, clock)

        await asyncio.gather(*(calls() for _ in range(5)), ticks())
        assert 1 <= most <= 6
        assert found.slots == {}
        assert found.fresh == {}

    clock.run(main())


def test_one_that_outlives_the_timer_still_ends_in_time(clock: FakeClock) -> None:
    """It is laid into a slot when the timer fires for another; there it is found again."""
    long, short = Guard("long", timeout=1.0, breaker=None), Guard("short", timeout=0.1)

    async def main() -> None:
        hung = [asyncio.create_task(ended_after(long, clock)) for _ in range(3)]
        well = asyncio.create_task(long.acall(asyncio.sleep, 0.5))
        left = asyncio.create_task(long.acall(forever))
        await asyncio.sleep(0)
        await ended_after(short, clock)
        found = wheels.wheel(asyncio.get_running_loop())
        assert found.fresh == {}
        assert sum(len(waiting) for waiting in found.slots.values()) == 5
        left.cancel()
        await well
        assert left.cancelled()
        assert sum(len(waiting) for waiting in found.slots.values()) == 3
        for took in await asyncio.gather(*hung):
            assert 1.0 <= took <= 1.0 + 2 * SLOT_SECONDS
        assert found.slots == {}
        assert timers() == []

    clock.run(main())


def test_each_loop_has_its_own(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.2)

    async def main() -> int:
        await ended_after(guard, clock)
        return id(wheels.wheel(asyncio.get_running_loop()))

    for _ in range(3):
        clock.run(main())


def test_a_closed_loop_is_not_kept_alive(clock: FakeClock) -> None:
    guard = Guard("t", timeout=30.0)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await guard.acall(asyncio.sleep, 0.01)
        assert len(timers()) == 1  # still armed when the loop is closed

    for _ in range(5):
        clock.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


def test_a_task_that_is_left_behind_by_its_loop_is_not_kept_alive(
    clock: FakeClock, recwarn: pytest.WarningsRecorder
) -> None:
    guard = Guard("t", timeout=30.0)
    left: list[weakref.ref[Any]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!"

    async def main() -> None:
        task = asyncio.create_task(guard.acall(forever))
        left.append(weakref.ref(task))
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert left[0]() is None
