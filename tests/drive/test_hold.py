"""A held attempt: in flight until it is ended, once, by its reader, the collector or its deadline."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Attempt, Guard, LimitReached, OutcomeClass, TimedOut, deadline
from brownout._core.sketch import bucket

if TYPE_CHECKING:
    from brownout.testing import FakeClock


def hold(attempt: Attempt) -> Any:
    return attempt.hold()


async def ahold(attempt: Attempt) -> Any:
    return attempt.hold()


def seen(guard: Guard, now: float) -> tuple[dict[str, int], int, int]:
    """Counts by class, attempts in flight, permits in use."""
    guard._target.fold(now)
    counts: dict[str, int] = {}
    flying = 0
    for operation in guard._target.operations.values():
        flying += operation.evidence.in_flight
        for class_, n in zip(OutcomeClass, operation.evidence.window().classes, strict=True):
            if n:
                counts[class_.name] = counts.get(class_.name, 0) + n
    assert guard._core.limit is not None
    return counts, flying, guard._core.limit.in_use


def test_it_stays_admitted_until_it_is_settled(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)
    held = guard.call(hold, with_attempt=True)
    assert seen(guard, clock.now()) == ({}, 1, 1)
    with pytest.raises(LimitReached):
        guard.call(lambda: None)
    held.settle(OutcomeClass.FAILURE)
    held.settle(OutcomeClass.SUCCESS)
    held.end()
    assert seen(guard, clock.now()) == ({"FAILURE": 1}, 0, 0)
    guard.call(lambda: None)
    assert seen(guard, clock.now()) == ({"FAILURE": 1, "SUCCESS": 1}, 0, 0)


def test_under_asyncio_and_in_a_block_it_is_the_same(clock: FakeClock) -> None:
    guard = Guard("t", limit=3)

    async def main() -> list[Any]:
        async with guard.attempt() as attempt:
            one = attempt.hold()
        return [await guard.acall(ahold, with_attempt=True), one]

    held = clock.run(main())
    with guard.attempt() as attempt:
        held.append(attempt.hold())
    assert seen(guard, clock.now()) == ({}, 3, 3)
    for one in held:
        one.end()
    assert seen(guard, clock.now()) == ({"SUCCESS": 3}, 0, 0)


def test_it_is_held_once_and_not_after_its_end() -> None:
    guard = Guard("t", limit=1)
    kept: list[Any] = []
    with guard.attempt() as attempt:
        kept.append(attempt.hold())
        with pytest.raises(RuntimeError, match="held already"):
            attempt.hold()
    kept.pop().end()
    with guard.attempt() as attempt:
        pass
    with pytest.raises(RuntimeError, match="is over"):
        attempt.hold()
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_whoever_drops_it_gives_it_back(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)
    held = guard.call(hold, with_attempt=True)
    cycle: list[Any] = [held]
    cycle.append(cycle)
    del held
    assert seen(guard, clock.now()) == ({}, 1, 1)
    del cycle
    gc.collect()
    assert seen(guard, clock.now()) == ({"SUCCESS": 1}, 0, 0)


def test_dropping_takes_no_lock() -> None:
    """The collector may run while this very thread folds, or asks the gate."""
    guard = Guard("t", limit=1)
    held = guard.call(hold, with_attempt=True)

    def drop() -> None:
        nonlocal held
        with guard._target._mutex:
            held = None

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


@pytest.mark.parametrize(
    ("listens", "inherited", "class_"),
    [
        (False, False, "SUCCESS"),
        (True, False, "UNKNOWN"),
        (True, True, "SHORT"),
    ],
)
def test_its_deadline_ends_it_by_whose_turn_it_is(
    clock: FakeClock, *, listens: bool, inherited: bool, class_: str
) -> None:
    guard = Guard("t", limit=1, timeout=2.0)
    with deadline(1.0 if inherited else 5.0):
        held = guard.call(hold, with_attempt=True)
    turn = held.listening()
    if listens:
        copy_context().run(turn.__enter__)
    clock.advance(0.9)
    assert seen(guard, clock.now()) == ({}, 1, 1)
    clock.advance(1.2)
    guard.call(lambda: None)  # the one permit is free again: nobody has read a state in between
    counts, flying, in_use = seen(guard, clock.now())
    assert (flying, in_use) == (0, 0)
    assert counts == {"SUCCESS": 1, class_: 1} if listens else {"SUCCESS": 2}
    held.settle(OutcomeClass.FAILURE)
    assert "FAILURE" not in seen(guard, clock.now())[0]


def test_only_the_longest_silence_of_the_target_counts(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)
    held = guard.call(hold, with_attempt=True, operation="read")
    evidence = guard._target.operations["read"].evidence
    for silence in (0.1, 0.4, 0.2):
        with held.listening():
            clock.advance(silence)
            assert evidence.fold(clock.now()).ages == [bucket(silence)]
        clock.advance(3.0)  # the caller reads at leisure
        assert evidence.fold(clock.now()).ages == []
        assert evidence.in_flight == 1
    held.end()
    evidence.fold(clock.now())
    answered = evidence.window().sketch.answered
    assert [index for index, count in enumerate(answered) if count] == [bucket(0.4)]


def test_who_leaves_in_the_targets_turn_is_censored(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)
    held = guard.call(hold, with_attempt=True, operation="read")

    def read() -> None:
        with held.listening():
            clock.advance(0.3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    held.end()
    assert seen(guard, clock.now()) == ({"CANCELLED": 1}, 0, 0)
    censored = guard._target.operations["read"].evidence.window().sketch.censored
    assert [index for index, count in enumerate(censored) if count] == [bucket(0.3)]


def test_under_asyncio_the_deadline_bounds_a_turn(clock: FakeClock) -> None:
    guard = Guard("t", limit=1, timeout=1.0)

    async def main() -> None:
        held = await guard.acall(ahold, with_attempt=True)
        async with held.listening():
            await asyncio.sleep(0.5)
        with pytest.raises(TimedOut, match="its time-out"):
            async with held.listening():
                await asyncio.sleep(5.0)
        assert 1.0 <= clock.now() - 1000.0 < 1.1
        with pytest.raises(TimedOut):
            async with held.listening():
                pytest.fail("there is no time left")
        held.settle(OutcomeClass.UNKNOWN)

    clock.run(main())
    assert seen(guard, clock.now()) == ({"UNKNOWN": 1}, 0, 0)


def test_a_cancel_in_a_turn_stays_the_callers(clock: FakeClock) -> None:
    guard = Guard("t", limit=1, timeout=1.0)

    async def main() -> None:
        async def read() -> None:
            held = await guard.acall(ahold, with_attempt=True)
            try:
                async with held.listening():
                    await asyncio.sleep(5.0)
            finally:
                held.end()

        task = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert seen(guard, clock.now()) == ({"CANCELLED": 1}, 0, 0)


def test_a_probe_that_is_held_is_told_to_its_gate(clock: FakeClock) -> None:
    guard = Guard("t", limit=1)
    told: list[tuple[int, OutcomeClass]] = []

    class Gate:
        def settle(self, lease: int, class_: OutcomeClass, _: float) -> None:
            told.append((lease, class_))

    with guard.attempt() as attempt:
        probe: Any = (Gate(), 7)
        attempt.probe = probe
        held = attempt.hold()
    assert told == []
    held.settle(OutcomeClass.FAILURE)
    guard._target.fold(clock.now())
    assert told == [(7, OutcomeClass.FAILURE)]


def test_threads_that_end_it_at_once_end_it_once() -> None:
    guard = Guard("t", limit=4)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            held = guard.call(hold, with_attempt=True)
            threads = [
                threading.Thread(target=held.settle, args=(OutcomeClass.SUCCESS,)) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0
    guard._target.fold(guard._target.next_fold)
    assert guard._target.operations["hold"].evidence.window().classes[OutcomeClass.SUCCESS] == 200
