"""Threads that write at once lose no count; the same test finds the loss in a plain dictionary."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from brownout import Guard, OutcomeClass

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
