"""The ambient deadline: what inherits it, what is carried, what is let go."""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor
from math import inf
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from brownout import DeadlinePassed, Guard, TimedOut, deadline, remaining
from brownout._drive.context import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.testing import FakeClock


def in_thread(fn: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result(10)


# ------------------------------------------------------------------------------------------ carry


def test_a_bare_thread_inherits_nothing_and_a_carried_function_its_deadline(
    clock: FakeClock,
) -> None:
    with deadline(2.0):
        assert in_thread(remaining) == inf
        assert in_thread(deadline.carry(remaining)) == 2.0


def test_the_instant_is_carried_not_the_span(clock: FakeClock) -> None:
    with deadline(2.0):
        carried = deadline.carry(remaining)
        clock.advance(0.5)
        with deadline(0.1):  # of the time of the call, not of the carrying
            pass
    assert in_thread(carried) == 1.5
    clock.advance(2.0)
    assert in_thread(carried) == 0.0


def test_a_carried_deadline_bounds_guarded_calls(clock: FakeClock) -> None:
    guard = Guard("t")
    with deadline(2.0):
        carried = deadline.carry(guard(lambda: "done"))
    assert in_thread(carried) == "done"
    clock.advance(2.0)
    with pytest.raises(DeadlinePassed):
        in_thread(carried)


def test_where_it_runs_a_shorter_deadline_holds(clock: FakeClock) -> None:
    with deadline(2.0):
        carried = deadline.carry(remaining)
    with deadline(1.0):
        assert carried() == 1.0
        assert remaining() == 1.0
    with deadline(3.0):
        assert carried() == 2.0
        assert remaining() == 3.0
    assert remaining() == inf


def test_without_a_deadline_there_is_none_to_carry(clock: FakeClock) -> None:
    carried = deadline.carry(remaining)
    assert in_thread(carried) == inf
    with deadline(1.0):
        assert carried() == 1.0


def test_carrying_leaves_no_deadline_behind_in_the_thread(clock: FakeClock) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as pool:
        with deadline(2.0):
            carried = deadline.carry(fails)
        with pytest.raises(ZeroDivisionError):
            pool.submit(carried).result(10)
        assert pool.submit(remaining).result(10) == inf


def test_a_carried_function_keeps_name_arguments_and_colour(clock: FakeClock) -> None:
    async def left(*, double: bool) -> float:
        """How long yet."""
        await asyncio.sleep(0.5)
        return remaining() * (2 if double else 1)

    with deadline(2.0):
        carried = deadline.carry(left)
        partly = deadline.carry(functools.partial(left, double=True))
    assert carried.__name__ == "left"
    assert inspect.iscoroutinefunction(carried)
    assert clock.run(carried(double=False)) == 1.5
    assert clock.run(partly()) == 2.0  # half a second later: 1.0, doubled


def test_one_carried_function_in_many_threads_at_once(clock: FakeClock) -> None:
    go = Event()

    def left() -> float:
        assert go.wait(10)
        return remaining()

    with deadline(2.0):
        carried = deadline.carry(left)
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(carried) for _ in range(4)]
        go.set()
        assert [end.result(10) for end in ends] == [2.0] * 4
        assert [pool.submit(remaining).result(10) for _ in range(4)] == [inf] * 4


def test_a_generator_can_not_be_carried() -> None:
    def some() -> Any:
        yield 1

    async def more() -> Any:
        yield 1

    for fn in (some, more):
        with pytest.raises(TypeError, match="generator"):
            deadline.carry(fn)


# ----------------------------------------------------------------------------------------- detach


def test_what_is_detached_has_no_deadline(clock: FakeClock) -> None:
    with deadline(2.0):
        with deadline.detach():
            assert remaining() == inf
            with deadline(5.0):
                assert remaining() == 5.0
        assert remaining() == 2.0
        clock.advance(3.0)
        with deadline.detach():
            assert Guard("t").call(lambda: "audited") == "audited"


def test_a_detached_block_ends_on_an_exception_too(clock: FakeClock) -> None:
    with deadline(2.0):
        with pytest.raises(ZeroDivisionError), deadline.detach():
            raise ZeroDivisionError
        assert remaining() == 2.0


def test_a_detached_attempt_can_start_what_outlives_its_time_out(clock: FakeClock) -> None:
    def work() -> float:
        with deadline.detach():
            return remaining()

    assert Guard("t", timeout=0.5).call(work) == inf


# ---------------------------------------------------------------------------- asyncio and threads


def test_tasks_and_to_thread_inherit_and_a_detached_task_does_not(clock: FakeClock) -> None:
    async def left() -> float:
        await asyncio.sleep(0.5)
        return remaining()

    async def main() -> None:
        with deadline(2.0):
            assert await asyncio.to_thread(remaining) == 2.0
            inherits = asyncio.create_task(left())
            with deadline.detach():
                free = asyncio.create_task(left())
        assert remaining() == inf
        assert await inherits == 1.5
        assert await free == inf

    clock.run(main())


def test_two_tasks_have_each_their_own(clock: FakeClock) -> None:
    async def left(seconds: float) -> float:
        with deadline(seconds):
            await asyncio.sleep(0.5)
            return remaining()

    async def main() -> list[float]:
        return list(await asyncio.gather(left(2.0), left(1.0), left(0.25)))

    assert clock.run(main()) == [1.5, 0.5, 0.0]
    assert remaining() == inf


# ------------------------------------------------------------------------------------------- lift


def test_a_lifted_deadline_holds_nowhere_any_more(clock: FakeClock) -> None:
    bound = deadline(2.0)
    with bound:
        carried = deadline.carry(remaining)
        assert in_thread(carried) == 2.0
        bound.lift()
        assert remaining() == inf
        assert in_thread(carried) == inf
        clock.advance(3.0)
        assert Guard("t").call(lambda: "after the answer") == "after the answer"
    with bound:  # it can be used again
        assert remaining() == 2.0


def test_lifting_reaches_tasks_that_copied_the_context(clock: FakeClock) -> None:
    guard = Guard("t")

    async def background() -> str:
        await asyncio.sleep(5.0)

        async def write() -> str:
            return "written"

        return await guard.acall(write)

    async def main(*, lift: bool) -> str:
        bound = deadline(2.0)
        with bound:
            task = asyncio.create_task(background())
            await asyncio.sleep(0)
            if lift:
                bound.lift()
        return await task

    assert clock.run(main(lift=True)) == "written"
    with pytest.raises(DeadlinePassed):
        clock.run(main(lift=False))


def test_lifting_leaves_the_deadline_outside_and_the_nested_one(clock: FakeClock) -> None:
    bound = deadline(2.0)
    with deadline(10.0), bound:
        with deadline(1.0):
            bound.lift()
            assert remaining() == 1.0
        assert remaining() == 10.0


def test_lifting_both_leaves_none(clock: FakeClock) -> None:
    inner, outer = deadline(2.0), deadline(10.0)
    with outer, inner:
        outer.lift()
        assert remaining() == 2.0
        inner.lift()
        assert remaining() == inf


def test_lifting_does_not_reach_an_attempt_in_flight(clock: FakeClock) -> None:
    guard = Guard("t")
    bound = deadline(2.0)

    async def hangs() -> None:
        bound.lift()
        assert remaining() == 2.0
        await asyncio.sleep(60)

    async def main() -> None:
        with bound, pytest.raises(TimedOut):
            await guard.acall(hangs)

    clock.run(main())


def test_the_instant_is_a_plain_float(clock: FakeClock) -> None:
    """What users keep and compare is none of our own objects."""
    with deadline(2.0) as end:
        assert type(end) is float
        assert type(remaining()) is float
        with Guard("t").attempt() as attempt:
            assert type(attempt.deadline) is float
    assert not isinstance(end, End)
