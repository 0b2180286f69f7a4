"""A cancel at any await point loses no permit, leaves nothing in flight, and is never eaten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brownout import Guard, OutcomeClass, Retry, _guard
from brownout.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

Script = list[tuple[int, float, str]]


class Points:
    """Hands on what a coroutine awaits, counts it, and cancels the task at one of them."""

    def __init__(self, inner: Coroutine[Any, Any, Any], cancel_at: int) -> None:
        self.inner = inner
        self.cancel_at = cancel_at
        self.seen = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task, thrown = asyncio.current_task(), None
        assert task is not None
        while True:
            try:
                awaited = self.inner.throw(thrown) if thrown else self.inner.send(None)
            except StopIteration as stop:
                return stop.value
            thrown = None
            self.seen += 1
            if self.seen == self.cancel_at:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield awaited
            except BaseException as error:
                thrown = error


def call(guard: Guard, form: str, script: Script) -> Coroutine[Any, Any, Any]:
    left = iter(script)

    async def work() -> str:
        turns, seconds, end = next(left, (0, 0.0, "ok"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        if end == "hangs":
            await asyncio.get_running_loop().create_future()
        if end == "fails":
            raise ConnectionResetError
        return end

    async def block() -> str:
        async with guard.attempt():
            return await work()

    if form == "attempt":
        return block()
    return guard.acall(work) if form == "acall" else guard.outcome(work)


async def fallback() -> str:
    await asyncio.sleep(0)
    return "spare"


def run(form: str, script: Script, cancel_at: int) -> tuple[int, bool]:
    """How many await points there were, and whether it ended as cancelled."""
    _guard._registry.clear()
    retry = Retry(attempts=3, budget=1.0, backoff=0.02)
    guard = Guard("t", timeout=0.2, retry=retry, limit=1, fallback=fallback, idempotent=True)
    guard._target.budget.balance = 10.0

    async def main() -> tuple[int, bool]:
        points = Points(call(guard, form, script), cancel_at)

        async def awaits() -> Any:
            return await points

        task = asyncio.create_task(awaits())
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        return points.seen, task.cancelled()

    with FakeClock() as clock:
        told = clock.run(main())
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0
    for operation in guard._target.operations.values():
        settled = sum(sum(shard.counts) for shard in operation.evidence._all())
        assert operation.evidence.in_flight == 0
        assert settled >= operation.evidence.calls  # each admitted one, once
        cancelled = [s.classes[OutcomeClass.CANCELLED] for s in operation.evidence._all()]
        assert sum(cancelled) <= (1 if told[1] else 0)
    return told


attempts = st.tuples(
    st.integers(0, 3), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from(["ok", "fails", "hangs"])
)


@pytest.mark.parametrize("form", ["acall", "outcome", "attempt"])
@given(script=st.lists(attempts, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_no_cancel_point_loses_a_permit_or_the_cancel(form: str, script: Script) -> None:
    points, cancelled = run(form, script, 0)
    assert not cancelled
    assert points >= 1
    for at in range(1, points + 1):
        seen, cancelled = run(form, script, at)
        assert cancelled
        assert seen == at  # nothing is begun after it
