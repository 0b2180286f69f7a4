"""Threads that write at once lose no count; the same test finds the loss in a plain dictionary.

Threads that come and go leave nothing behind, and lose no count either.
"""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from brownout import Attempt, Guard, OutcomeClass
from brownout._core.target import THREADS as THREADS_KEPT
from brownout._core.target import Target
from brownout._drive.clock import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 8
CALLS = 100_000


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[], None], calls: int) -> None:
    go = threading.Barrier(THREADS)

    def run() -> None:
        go.wait(10.0)
        for _ in range(calls):
            work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)


@pytest.mark.timeout(180)
def test_eight_threads_lose_no_count_of_800_000(restless: None) -> None:
    guard = Guard("t", limit=THREADS)
    guarded = guard(lambda: None)
    at_once(guarded, CALLS)
    (operation,) = guard._target.operations.values()
    shards = operation.evidence._all()
    assert operation.evidence.calls == THREADS * CALLS
    assert sum(shard.counts[OutcomeClass.SUCCESS] for shard in shards) == THREADS * CALLS
    assert sum(sum(shard.answered) for shard in shards) == THREADS * CALLS
    assert operation.evidence.in_flight == 0
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_a_count_that_is_not_sharded_is_caught(restless: None) -> None:
    """The mutant, `d[k] = d.get(k, 0) + 1`, under the same load."""
    counts: dict[str, int] = {}

    def work() -> None:
        counts["n"] = counts.get("n", 0) + 1

    for _ in range(10):
        counts.clear()
        at_once(work, CALLS)
        if counts["n"] < THREADS * CALLS:
            return
    pytest.fail("no count was lost in 10 x 800,000: this machine can't tell")


def come_and_go(work: Callable[[], object], threads: int) -> None:
    """So many threads that each work once, fifty at a time: all of them have numbers of their own."""
    for _ in range(threads // 50):
        together = threading.Barrier(50)

        def run(together: threading.Barrier = together) -> None:
            together.wait(10.0)
            work()
            together.wait(10.0)

        batch = [threading.Thread(target=run) for _ in range(50)]
        for thread in batch:
            thread.start()
        for thread in batch:
            thread.join(10.0)


def allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.alone  # it has to be over before the window forgets
@pytest.mark.timeout(180)
def test_ten_thousand_short_threads_leave_nothing_and_lose_no_count() -> None:
    guard = Guard("t", limit=50)
    guarded = guard(lambda: None)
    come_and_go(guarded, 1000)
    (operation,) = guard._target.operations.values()
    guard._target.fold(clock.now())
    tracemalloc.start()
    try:
        before = allocated()
        come_and_go(guarded, 10_000)
        guard._target.fold(clock.now())
        grown = allocated() - before
    finally:
        tracemalloc.stop()
    evidence = operation.evidence
    assert evidence.calls == 11_000
    assert evidence.window().classes[OutcomeClass.SUCCESS] == 11_000
    assert len(evidence._all()) <= THREADS_KEPT + 1
    assert grown < 500_000  # 50 bytes left by each would be as much; a shard of each is 20 MB


def test_as_many_threads_at_once_leave_nothing_either() -> None:
    target = Target("t", threading.Lock, frozenset)
    evidence = target.operation("read", 0.0).evidence
    for thread in range(10_000):
        attempt = Attempt(evidence.shard(thread), 0.0, 1.0)
        attempt.shard.pending[attempt] = None
        attempt.shard.settle(attempt, OutcomeClass.SUCCESS, 0.1)
    target.fold(0.1)
    assert evidence.calls == 10_000
    assert evidence._all() == []
    target.fold(0.2)
    assert evidence.window().classes[OutcomeClass.SUCCESS] == 10_000
