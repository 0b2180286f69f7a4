"""The driver for threads."""

from __future__ import annotations

import asyncio
import traceback
from threading import Event, Thread
from typing import Any

import pytest

from brownout import Attempt, Guard, OutcomeClass, Retry, deadline, remaining
from brownout.testing import FakeClock, Script, answer, fail
from tests.seen import classes

REFUSED = fail(ConnectionRefusedError(111, "no"))


def test_a_late_value_is_returned_and_counted_late(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.2)

    def overruns() -> str:
        clock.sleep(1.0)
        return "late"

    assert guard.call(overruns) == "late"
    guard._target.fold(clock.now())
    operation = guard._target.operations["overruns"]
    assert 0.9 < operation.evidence.window().sketch.quantile(0.5) < 1.1
    assert classes(guard) == {"SUCCESS": 1}


def test_the_users_exception_is_the_same_object_with_its_traceback(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=3, budget=1.0))
    last = ConnectionRefusedError(111, "third")

    def third() -> None:
        raise last

    script = Script(clock, REFUSED, REFUSED, answer())
    calls = iter([script.call, script.call, third])

    def step() -> None:
        next(calls)()

    # The first token, and one of this call's own: two extra attempts.
    with pytest.raises(ConnectionRefusedError) as caught:
        guard.call(step, operation="op")
    assert caught.value is last
    assert [frame.name for frame in traceback.extract_tb(last.__traceback__)][-1] == "third"
    assert last.__notes__ == ["brownout: 3 attempts at t.op in 0.11 s"] or (
        last.__notes__[0].startswith("brownout: 3 attempts at t.op in ")
    )


def test_one_attempt_leaves_no_note(clock: FakeClock) -> None:
    error = RuntimeError("odd")
    with pytest.raises(RuntimeError):
        Guard("t").call(Script(clock, fail(error)).call)
    assert not hasattr(error, "__notes__")


def test_what_a_value_showed_can_be_said(clock: FakeClock) -> None:
    guard = Guard("t")

    def bad(attempt: Attempt) -> str:
        attempt.settle(OutcomeClass.FAILURE)
        return "an error page"

    assert guard.call(bad, with_attempt=True) == "an error page"
    assert classes(guard) == {"FAILURE": 1}


def test_the_time_left_is_pushed_down(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)
    assert guard.call(remaining) == pytest.approx(0.8)
    with deadline(0.5):
        assert guard.call(remaining) == pytest.approx(0.5)
        with deadline(10.0):  # a nested one only shortens
            assert remaining() == pytest.approx(0.5)
        with deadline(0.1):
            assert remaining() == pytest.approx(0.1)
        clock.advance(0.7)
        assert remaining() == 0.0
    assert remaining() == float("inf")


def test_a_client_ended_by_an_inherited_deadline_is_no_evidence_of_silence(
    clock: FakeClock,
) -> None:
    guard = Guard("t", timeout=0.8)

    def times_out() -> None:
        clock.sleep(remaining())
        raise TimeoutError

    with deadline(0.3), pytest.raises(TimeoutError):
        guard.call(times_out)
    with pytest.raises(TimeoutError):
        guard.call(times_out)
    assert classes(guard) == {"SHORT": 1, "UNKNOWN": 1}


def test_a_wait_for_our_own_pool_is_nothing_against_the_target(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8, retry=Retry(budget=1.0))

    def queued(attempt: Attempt) -> None:
        attempt.waiting()
        clock.sleep(remaining())
        raise TimeoutError("no connection came free")

    with pytest.raises(TimeoutError):
        guard.call(queued, with_attempt=True)
    assert classes(guard) == {"LOCAL": 1}


def test_leaving_our_own_pools_queue_is_nothing_against_the_target(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.8)

    def left(attempt: Attempt) -> None:
        attempt.waiting()
        clock.sleep(0.5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard.call(left, with_attempt=True)
    assert classes(guard) == {"LOCAL": 1}


def test_the_wait_for_the_pool_is_not_in_the_latency(clock: FakeClock) -> None:
    guard = Guard("t")

    def waited(attempt: Attempt) -> None:
        attempt.waiting()
        clock.sleep(0.5)
        attempt.waited(0.5)
        attempt.sent()
        clock.sleep(0.1)

    guard.call(waited, with_attempt=True)
    guard._target.fold(clock.now())
    window = guard._target.operations["waited"].evidence.window()
    assert window.sketch.quantile(0.5) == pytest.approx(0.1, rel=0.1)
    assert window.waited == 0.5


def test_not_sent_is_certain_whatever_ended_it(clock: FakeClock) -> None:
    """A connection that times out was never sent, so also what is not idempotent is repeated."""
    guard = Guard("t", timeout=0.8, retry=Retry(budget=1.0))
    calls = []

    def connects(attempt: Attempt) -> str:
        calls.append(clock.now())
        attempt.waiting()
        attempt.waited(0.0)
        if len(calls) == 1:
            clock.sleep(remaining())
            raise TimeoutError("connecting")
        return "ok"

    assert guard.call(connects, with_attempt=True) == "ok"
    assert classes(guard) == {"UNKNOWN": 1, "SUCCESS": 1}


def test_a_def_that_returns_a_coroutine_does_not_go_unprotected(clock: FakeClock) -> None:
    async def work() -> str:
        return "ok"

    def hidden() -> Any:
        return work()

    guard = Guard("t", limit=1)
    wrapped: Any = guard(hidden)

    with pytest.raises(TypeError, match="coroutine"):
        guard.call(hidden)
    with pytest.raises(TypeError, match="coroutine"):
        wrapped()
    with pytest.raises(TypeError, match="coroutine"):
        Guard("t", fallback=lambda: "spare").call(hidden)
    with pytest.raises(TypeError, match="coroutine"):
        guard.outcome(hidden)
    assert set(classes(guard)) == {"LOCAL"}
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_permits_are_exact_across_threads() -> None:
    guard = Guard("t", limit=3, breaker=None)
    running, go = [], Event()
    ends: list[str] = []

    def work() -> None:
        running.append(1)
        if not go.wait(10):
            raise TimeoutError

    def call() -> None:
        try:
            guard.call(work)
            ends.append("ok")
        except Exception as error:
            ends.append(type(error).__name__)
            if ends.count("LimitReached") == 17:
                go.set()

    threads = [Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(running) == 3
    assert sorted(ends) == ["LimitReached"] * 17 + ["ok"] * 3
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_the_ordinary_path_counts_as_the_longer_one_does(clock: FakeClock) -> None:
    """It is written out in each driver for speed; what it leaves behind must be the same."""
    spans = [0.0, 1e-6, 0.001, 0.0123, 0.4, 3.0, 500.0]

    def told(name: str, *, longer: bool, loop: bool) -> tuple[object, ...]:
        guard = Guard(name, timeout=1000.0, limit=2, breaker=None)

        def work(seconds: float) -> float:
            clock.sleep(seconds)
            return remaining()

        async def awork(seconds: float) -> float:
            await asyncio.sleep(seconds)  # one that blocks its loop is another matter: test_late.py
            return remaining()

        def handed(_: Attempt, seconds: float) -> float:
            return work(seconds)

        async def ahanded(_: Attempt, seconds: float) -> float:
            return await awork(seconds)

        async def main() -> list[float]:
            if longer:
                return [
                    await guard.acall(ahanded, s, operation="w", with_attempt=True) for s in spans
                ]
            return [await guard.acall(awork, s, operation="w") for s in spans]

        if loop:
            left = clock.run(main())
        elif longer:
            left = [guard.call(handed, s, operation="w", with_attempt=True) for s in spans]
        else:
            left = [guard.call(work, s, operation="w") for s in spans]
        evidence, limit = guard._target.operation("w", 0.0).evidence, guard._core.limit
        assert limit is not None
        (shard,) = evidence.shards.values()
        counted = (list(shard.answered), shard.counts, shard.calls, evidence.in_flight)
        return [round(x, 6) for x in left], counted, limit.in_use

    ways = [
        told(f"{longer}-{loop}", longer=longer, loop=loop)
        for longer in (True, False)
        for loop in (True, False)
    ]
    assert ways[0] == ways[1] == ways[2] == ways[3]
