"""What is kept, in bytes: many of a kind are made, and the growth of the heap is divided by their number."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from bench.cost import aplain, full, plain
from bench.peers import made

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bench.peers import Peer
    from brownout import Guard

OPERATIONS = 20  # of a target: fewer than it keeps apart
_number = count()


def each(make: Callable[[], Any], many: int) -> float:
    """Bytes that one more of what `make` makes takes."""
    make()  # what is made once, is not counted
    started = not tracemalloc.is_tracing()
    if started:
        tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        kept = [make() for _ in range(many)]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        if started:
            tracemalloc.stop()
    del kept
    return grown / many


def _guard() -> Guard:
    return full(f"bench-memory-{next(_number)}")


def _called() -> Any:
    guarded = _guard()(plain)
    guarded(1)
    return guarded


def _operations(many: int) -> Any:
    guard = _guard()
    for number in range(many):
        guard.call(plain, 1, operation=f"operation {number}")
    return guard


def _on_threads(threads: int, call: Callable[[], Any]) -> Any:
    """So many threads that have called, and live on; what stops them."""
    go, over = threading.Event(), threading.Event()
    called = threading.Semaphore(0)

    def run() -> None:
        go.wait()
        call()
        called.release()
        over.wait()

    crowd = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crowd:
        thread.start()

    def let() -> None:
        go.set()
        for _ in crowd:
            called.acquire()

    def stop() -> None:
        over.set()
        for thread in crowd:
            thread.join()

    return let, stop


def shard(threads: int) -> float:
    """Bytes that one more calling thread takes: its shard of one operation."""
    guarded = _called()
    let, stop = _on_threads(threads, lambda: guarded(1))
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        let()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / threads
    finally:
        tracemalloc.stop()
        stop()


def own(many: int) -> dict[str, float]:
    """Bytes of brownout's."""
    guard = each(_guard, many)
    first = each(_called, many)
    one, more = (each(partial(_operations, n), many // 4 or 1) for n in (1, 1 + OPERATIONS))
    return {
        "a guard, before its first call": guard,
        "a guard and a function, after its first call": first,
        "one more operation, on one thread": (more - one) / OPERATIONS,
        "one more thread, of one operation": shard(many),
    }


def theirs(
    peers: list[tuple[Peer, bool]], many: int, loop: asyncio.Runner
) -> dict[tuple[str, bool], float]:
    """Bytes of a peer's function after its first call; not of those that start threads."""

    def maker(peer: Peer, *, is_async: bool) -> Callable[[], Any]:
        def make() -> Any:
            call = made(peer, _unlike(is_async=is_async), loop)
            if is_async:
                loop.run(call(1))
            else:
                call(1)
            return call

        return make

    return {
        (peer.name, is_async): each(maker(peer, is_async=is_async), many)
        for peer, is_async in peers
        if is_async or peer.lacks
    }


def _unlike(*, is_async: bool) -> Any:
    """A function of its own: some peers keep what they have by the function."""
    if is_async:

        async def asynchronous(x: int) -> int:
            return await aplain(x)

        return asynchronous

    def synchronous(x: int) -> int:
        return plain(x)

    return synchronous
