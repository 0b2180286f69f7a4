"""The driver for asyncio: cancellation above all."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from brownout import (
    Attempt,
    DeadlinePassed,
    Guard,
    OutcomeClass,
    OutcomeUnknown,
    Phase,
    Retry,
    TimedOut,
    deadline,
    remaining,
)
from brownout.testing import FakeClock, Script, answer, fail, hang
from tests.seen import classes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def in_use(guard: Guard) -> int:
    assert guard._core.limit is not None
    return guard._core.limit.in_use


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_our_timer_says_timed_out(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def main() -> None:
        began = clock.now()
        with pytest.raises(TimedOut) as caught:
            await guard.acall(forever)
        assert isinstance(caught.value, OutcomeUnknown)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.target == "t"
        assert caught.value.sent_at == began
        assert 0.8 <= clock.now() - began <= 0.83
        assert cancelling() == 0
        await asyncio.sleep(0)  # no cancel is left over

    clock.run(main())
    assert classes(guard) == {"UNKNOWN": 1}


def test_a_callers_cancel_is_a_cancel(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8, retry=Retry(budget=1.0), idempotent=True, limit=1)

    async def main() -> None:
        task = asyncio.create_task(guard.acall(forever))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert classes(guard) == {"CANCELLED": 1}
    assert in_use(guard) == 0


def test_a_callers_cancel_in_the_same_moment_as_our_timer_wins(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8, limit=1)

    async def cancelled_too() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # somebody else's, before ours has been handled
            raise

    async def main() -> None:
        task = asyncio.create_task(guard.acall(cancelled_too))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    clock.run(main())
    assert classes(guard) == {"CANCELLED": 1}


def test_a_value_returned_although_the_timer_fired_is_returned(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "done all the same"
        raise AssertionError

    async def main() -> None:
        assert await guard.acall(stubborn) == "done all the same"
        assert cancelling() == 0
        await asyncio.sleep(0)

    clock.run(main())
    assert classes(guard) == {"SUCCESS": 1}


def test_asyncios_timeout_inside_is_the_clients_own(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def inner() -> None:
        async with asyncio.timeout(0.3):
            await forever()

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await guard.acall(inner)
        assert not isinstance(caught.value, TimedOut)
        assert cancelling() == 0

    clock.run(main())
    assert classes(guard) == {"UNKNOWN": 1}


def test_asyncios_timeout_outside_is_the_callers_cancel(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.3):
                await guard.acall(forever)
        assert not isinstance(caught.value, TimedOut)
        assert cancelling() == 0

    clock.run(main())
    assert classes(guard) == {"CANCELLED": 1}


def test_our_timer_inside_a_longer_asyncio_timeout(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.3)

    async def main() -> None:
        async with asyncio.timeout(0.8):
            with pytest.raises(TimedOut):
                await guard.acall(forever)
        assert cancelling() == 0

    clock.run(main())


def test_a_task_group_inside_is_ended_by_our_timer(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.3)
    ends = []

    async def child() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(child())

    async def main() -> None:
        with pytest.raises(TimedOut):
            await guard.acall(group)
        assert cancelling() == 0

    clock.run(main())
    assert ends == ["cancelled", "cancelled"]


def test_a_task_group_outside_cancels_the_call(clock: FakeClock) -> None:
    guard = Guard("t", timeout=5.0, limit=1)

    async def fails() -> None:
        await asyncio.sleep(0.1)
        raise ZeroDivisionError

    async def main() -> None:
        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails())
                await guard.acall(forever)

        with pytest.raises(ExceptionGroup) as caught:
            await group()
        assert caught.group_contains(ZeroDivisionError)
        assert cancelling() == 0

    clock.run(main())
    assert classes(guard) == {"CANCELLED": 1}
    assert in_use(guard) == 0


@pytest.mark.parametrize(
    ("outer", "inner", "who"), [(0.3, 0.8, "outer"), (0.8, 0.3, "inner"), (0.3, 0.3, "outer")]
)
def test_nested_guards_each_know_their_own_timer(
    clock: FakeClock, outer: float, inner: float, who: str
) -> None:
    one, other = Guard("outer", timeout=outer), Guard("inner", timeout=inner)

    async def main() -> None:
        with pytest.raises(TimedOut) as caught:
            await one.acall(other.acall, forever)
        assert caught.value.target == who
        assert cancelling() == 0
        await asyncio.sleep(0)

    clock.run(main())
    assert classes(one) == {"UNKNOWN": 1}  # it showed its caller nothing in its time
    assert ("UNKNOWN" in classes(other)) == (who == "inner")


def test_a_short_inherited_deadline_is_not_held_against_the_target(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def main() -> None:
        with deadline(0.3), pytest.raises(TimedOut, match="inherited"):
            await guard.acall(forever)

    clock.run(main())
    assert classes(guard) == {"SHORT": 1}


def test_a_passed_deadline_sends_nothing(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)
    script = Script(clock, answer())

    async def main() -> None:
        with deadline(0.0), pytest.raises(DeadlinePassed):
            await guard.acall(script.acall)

    clock.run(main())
    assert script.called_at == []
    assert classes(guard) == {}


def test_in_our_own_pools_queue_our_timer_says_not_sent(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.3)

    async def queued(attempt: Attempt) -> None:
        attempt.waiting()
        await forever()

    async def main() -> None:
        with pytest.raises(DeadlinePassed, match="not sent"):
            await guard.acall(queued, with_attempt=True)

    clock.run(main())
    assert classes(guard) == {"LOCAL": 1}


def test_before_sending_our_timer_leaves_no_doubt(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.3, retry=Retry(attempts=2, budget=1.0))
    calls = []

    async def connects(attempt: Attempt) -> str:
        calls.append(1)
        attempt.waiting()
        attempt.waited(0.0)
        if len(calls) == 1:
            await forever()
        return "ok"

    async def main() -> None:
        assert await guard.acall(connects, with_attempt=True) == "ok"
        calls.clear()
        with pytest.raises(TimedOut, match="not sent") as caught:
            await Guard("other", timeout=0.3).acall(connects, with_attempt=True)
        assert caught.value.phase is Phase.NOT_SENT

    clock.run(main())
    assert classes(guard) == {"UNKNOWN": 1, "SUCCESS": 1}


async def cancel_soon(make: Callable[[], Coroutine[Any, Any, Any]], turns: int) -> None:
    """Cancel a task after so many turns of the loop."""
    task = asyncio.create_task(make())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except (asyncio.CancelledError, OSError, TimeoutError):
        pass


@pytest.mark.parametrize("form", ["acall", "outcome", "attempt"])
def test_no_cancel_point_loses_a_permit(clock: FakeClock, form: str) -> None:
    """A call that waits, fails, backs off and tries again, cancelled at each of its turns."""
    guard = Guard(
        "t",
        timeout=0.5,
        limit=1000,
        retry=Retry(attempts=10, budget=1.0, backoff=0.0),
        idempotent=True,
        breaker=None,
    )

    async def shaky() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ConnectionResetError

    async def block() -> None:
        async with guard.attempt():
            for _ in range(200):
                await asyncio.sleep(0)

    def make() -> Coroutine[Any, Any, Any]:
        if form == "acall":
            return guard.acall(shaky)
        return guard.outcome(shaky) if form == "outcome" else block()

    async def main() -> None:
        for turns in range(100):
            guard._target.budget.balance = 10.0
            await cancel_soon(make, turns)
        await asyncio.sleep(2)

    clock.run(main())
    assert in_use(guard) == 0
    assert all(o.evidence.in_flight == 0 for o in guard._target.operations.values())
    assert classes(guard).get("CANCELLED", 0) > 10


def test_a_cancel_during_the_back_off_is_a_cancel(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(budget=1.0, backoff=1.0), limit=1)
    script = Script(clock, fail(ConnectionRefusedError(111, "no")))

    async def main() -> None:
        task = asyncio.create_task(guard.acall(script.acall))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert len(script.called_at) == 1
    assert classes(guard) == {"CONNECT": 1}
    assert in_use(guard) == 0


def test_a_coroutine_that_is_thrown_away_gives_its_permit_back(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)

    async def main() -> None:
        coroutine = guard.acall(forever)
        coroutine.send(None)
        assert in_use(guard) == 1
        coroutine.close()

    clock.run(main())
    assert in_use(guard) == 0


def test_the_users_exception_is_the_same_object_with_its_traceback(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=3, budget=1.0))
    last = ConnectionRefusedError(111, "third")
    calls: list[int] = []

    async def third() -> None:
        calls.append(1)
        raise last if len(calls) == 3 else ConnectionRefusedError(111, "no")

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError) as caught:
            await guard.acall(third)
        assert caught.value is last

    clock.run(main())
    assert [frame.name for frame in traceback.extract_tb(last.__traceback__)][-1] == "third"
    assert last.__notes__[0].startswith("brownout: 3 attempts at t.third in ")


def test_what_a_value_showed_can_be_said(clock: FakeClock) -> None:
    guard = Guard("t", timeout=1.0)

    async def bad(attempt: Attempt) -> str:
        attempt.settle(OutcomeClass.FAILURE)
        return "an error page"

    assert clock.run(guard.acall(bad, with_attempt=True)) == "an error page"
    assert classes(guard) == {"FAILURE": 1}


def test_the_time_left_is_seen_inside(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    async def left() -> float:
        await asyncio.sleep(0.2)
        return remaining()

    assert clock.run(guard.acall(left)) == pytest.approx(0.6)


# --------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("timeout", [0.5, float("inf")])
def test_a_block_is_one_attempt(clock: FakeClock, timeout: float) -> None:
    guard = Guard("t", timeout=timeout, limit=1)

    async def main() -> None:
        async with guard.attempt() as attempt:
            await asyncio.sleep(0.1)
            assert in_use(guard) == 1
            assert attempt.deadline - clock.now() == pytest.approx(timeout - 0.1)
        with pytest.raises(ZeroDivisionError):
            async with guard.attempt():
                raise ZeroDivisionError

    clock.run(main())
    assert classes(guard) == {"SUCCESS": 1, "FAILURE": 1}
    assert in_use(guard) == 0
    assert remaining() == float("inf")


def test_a_blocks_time_is_bounded(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.5, limit=1)

    async def main() -> None:
        with pytest.raises(TimedOut):
            async with guard.attempt():
                await forever()
        assert cancelling() == 0

    clock.run(main())
    assert classes(guard) == {"UNKNOWN": 1}
    assert in_use(guard) == 0


def test_a_block_can_say_what_it_showed(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.5)

    async def main() -> None:
        async with guard.attempt("pick") as attempt:
            attempt.settle(OutcomeClass.OVERLOAD)

    clock.run(main())
    with guard.attempt() as attempt:
        attempt.settle(OutcomeClass.FAILURE)
    assert classes(guard) == {"OVERLOAD": 1, "FAILURE": 1}
    assert set(guard._target.operations) == {"pick", "attempt"}


def test_a_sync_block_is_one_attempt(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.5, limit=1, retry=Retry(budget=1.0))
    with guard.attempt():
        assert remaining() == pytest.approx(0.5)
        assert in_use(guard) == 1
    with pytest.raises(KeyboardInterrupt), guard.attempt():
        raise KeyboardInterrupt
    with pytest.raises(ConnectionRefusedError), guard.attempt():
        raise ConnectionRefusedError(111, "no")
    assert remaining() == float("inf")
    assert in_use(guard) == 0
    assert classes(guard) == {"SUCCESS": 1, "CANCELLED": 1, "CONNECT": 1}


def test_a_refused_block_does_not_run(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)

    async def main() -> None:
        with deadline(0.0), pytest.raises(DeadlinePassed):
            async with guard.attempt():
                raise AssertionError

    clock.run(main())
    with deadline(0.0), pytest.raises(DeadlinePassed), guard.attempt():
        raise AssertionError
    assert in_use(guard) == 0
    assert classes(guard) == {}


# ------------------------------------------------------------------------------------- fallback


def test_a_fallback_may_be_sync_or_async(clock: FakeClock) -> None:
    async def spare(sku: str) -> str:
        await asyncio.sleep(0.1)
        return f"spare {sku}"

    for fallback in (spare, lambda sku: f"spare {sku}"):
        guard = Guard("t", timeout=0.3, fallback=fallback)
        script = Script(clock, hang())
        assert clock.run(guard.acall(script.acall, "A-1")) == "spare A-1"


def test_a_cancel_in_the_fallback_is_a_cancel(clock: FakeClock) -> None:
    async def spare() -> None:
        await forever()

    guard = Guard("t", fallback=spare, limit=1)
    script = Script(clock, fail(RuntimeError("odd")))

    async def main() -> None:
        task = asyncio.create_task(guard.acall(script.acall))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert in_use(guard) == 0


def test_the_next_attempt_inherits_nothing_of_one_that_is_over(clock: FakeClock) -> None:
    """An attempt's object may serve again: never one that was expired, however it ended."""
    guard = Guard("t", timeout=0.5, limit=2, breaker=None)

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "late"
        raise AssertionError

    @guard
    async def work(do: Callable[[], Coroutine[Any, Any, str]]) -> str:
        return await do()

    async def quick() -> str:
        return f"{remaining():.1f}"

    async def main() -> None:
        for _ in range(3):
            assert await work(quick) == "0.5"
            assert [*await asyncio.gather(work(stubborn), work(stubborn))] == ["late", "late"]
            assert await work(quick) == "0.5"
            left = [asyncio.create_task(work(forever)) for _ in "ab"]  # type: ignore[arg-type]
            await asyncio.sleep(0)
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            assert [task.cancelled() for task in left] == [True, True]  # by the caller, not by us
            assert await work(quick) == "0.5"
            began = clock.now()
            with pytest.raises(TimedOut):
                await work(forever)  # type: ignore[arg-type]
            assert 0.5 <= clock.now() - began <= 0.53
            assert in_use(guard) == 0

    clock.run(main())
    assert classes(guard) == {"SUCCESS": 15, "UNKNOWN": 3, "CANCELLED": 6}
    assert guard._target.operation("work", 0.0).evidence.in_flight == 0


def test_without_a_time_out_nothing_is_cancelled(clock: FakeClock) -> None:
    """It shares the wheel with those that have one, and outlives them."""
    endless, short = Guard("endless"), Guard("short", timeout=0.1, breaker=None)

    async def main() -> None:
        long = asyncio.create_task(endless.acall(asyncio.sleep, 100.0))
        left = asyncio.create_task(endless.acall(forever))
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(TimedOut):
                await short.acall(forever)
        await long
        assert not left.done()
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left

    clock.run(main())
    assert classes(endless) == {"SUCCESS": 1, "CANCELLED": 1}
