"""What a call costs: CPU time of this process, every case in each round, the least of all rounds."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import nullcontext
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import brownout
from bench.peers import made
from brownout import Breaker, Guard, Retry, deadline

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from bench.peers import Peer

BARE, ABARE, TIMEOUT = "bare call", "bare await", "asyncio.timeout alone"
GUARDED = "brownout: full guard"
CALLS_MOST = 20_000
HOUR = 3600.0
PATIENCE = 20.0


class Case(NamedTuple):
    """A thing to call, again and again. `within` is entered around them all."""

    name: str
    is_async: bool
    call: Callable[[int], Any]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    lacks: str = ""

    @property
    def key(self) -> tuple[str, bool]:
        """Tells it apart."""
        return self.name, self.is_async


def plain(x: int) -> int:
    return x


async def aplain(x: int) -> int:
    return x


async def timed(x: int) -> int:
    async with asyncio.timeout(5):
        return await aplain(x)


def refuses(x: int) -> int:
    raise ConnectionRefusedError(111, "refused")


async def arefuses(x: int) -> int:
    raise ConnectionRefusedError(111, "refused")


class Flaky:
    """Fails every other time."""

    def __init__(self) -> None:
        self.turn = 0

    def sync(self, x: int) -> int:
        self.turn += 1
        return refuses(x) if self.turn & 1 else x

    async def asynchronous(self, x: int) -> int:
        self.turn += 1
        return refuses(x) if self.turn & 1 else x


def raising(call: Callable[[int], Any], expected: type[BaseException]) -> Callable[[int], None]:
    """The call, of which nothing but `expected` is to come."""

    def checked(x: int) -> None:
        try:
            call(x)
        except expected:
            return
        raise AssertionError(f"{expected.__name__} was to be raised")

    return checked


def araising(call: Callable[[int], Any], expected: type[BaseException]) -> Callable[[int], Any]:
    """The same, awaited."""

    async def checked(x: int) -> None:
        try:
            await call(x)
        except expected:
            return
        raise AssertionError(f"{expected.__name__} was to be raised")

    return checked


def full(name: str, **how: Any) -> Guard:
    """A guard with all it has: time-out, retry, breaker, limit, evidence, state."""
    return Guard(name, **{"timeout": 5.0, "retry": Retry(), "limit": 100, **how})


def _both(name: str, guard: Guard, expected: type[BaseException], **how: Any) -> list[Case]:
    return [
        Case(name, False, raising(guard(plain), expected), **how),
        Case(name, True, araising(guard(aplain), expected), **how),
    ]


def crash(guard: Guard, operation: str) -> None:
    """Fail until the guard has judged that the target is down."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            guard.call(refuses, 0, operation=operation)
        except brownout.BreakerOpen:
            return
        except ConnectionRefusedError:
            time.sleep(0.001)
    raise AssertionError("the breaker did not open")


def _refusals() -> list[Case]:
    shut = full("bench-open", breaker=Breaker(wait=HOUR, wait_most=HOUR))
    for function in (plain, aplain):
        crash(shut, function.__name__)
    used_up = full("bench-used-up", limit=1)
    copy_context().run(used_up.attempt().__enter__)  # its deadline stays there
    return [
        *_both("refusal: breaker open", shut, brownout.BreakerOpen),
        *_both("refusal: limit reached", used_up, brownout.LimitReached),
        *_both(
            "refusal: deadline passed",
            full("bench-late"),
            brownout.DeadlinePassed,
            within=lambda: deadline(0.0),
        ),
    ]


def own() -> list[Case]:
    """The baselines, and brownout."""
    guard = full("bench")
    again = full("bench-retry", breaker=None, retry=Retry(budget=1.0, backoff=0.0))
    failing = full("bench-failing", breaker=None, retry=None)
    refused = ConnectionRefusedError
    return [
        Case(BARE, False, plain),
        Case(ABARE, True, aplain),
        Case(TIMEOUT, True, timed),
        Case(GUARDED, False, guard(plain)),
        Case(GUARDED, True, guard(aplain)),
        Case("bare call that fails", False, raising(refuses, refused)),
        Case("bare call that fails", True, araising(arefuses, refused)),
        Case("one failure", False, raising(failing(refuses), refused)),
        Case("one failure", True, araising(failing(arefuses), refused)),
        Case("one failure, retried", False, again(Flaky().sync)),
        Case("one failure, retried", True, again(Flaky().asynchronous)),
        *_refusals(),
    ]


def theirs(peers: list[tuple[Peer, bool]], loop: asyncio.Runner) -> list[Case]:
    """The peers."""
    return [
        Case(peer.name, is_async, made(peer, aplain if is_async else plain, loop), lacks=peer.lacks)
        for peer, is_async in peers
    ]


# ---------------------------------------------------------------------------------- measuring


def sample(case: Case, calls: int, loop: asyncio.Runner) -> float:
    """Microseconds of CPU time a call."""
    call = case.call

    def sync_main() -> float:
        began = time.process_time()
        for i in range(calls):
            call(i)
        return time.process_time() - began

    async def async_main() -> float:
        began = time.process_time()
        for i in range(calls):
            await call(i)
        return time.process_time() - began

    with case.within():
        seconds = loop.run(async_main(), context=copy_context()) if case.is_async else sync_main()
    return seconds / calls * 1e6


def measure(
    cases: list[Case], rounds: int, seconds: float, loop: asyncio.Runner
) -> dict[tuple[str, bool], float]:
    """The least microseconds a call of each case; a sample takes about so many seconds."""
    calls: dict[tuple[str, bool], int] = {}
    for case in cases:
        sample(case, 50, loop)
        first = max(sample(case, 50, loop), 0.01)
        calls[case.key] = min(max(50, int(seconds * 1e6 / first)), CALLS_MOST)
    best = dict.fromkeys(calls, inf)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for case in cases:
                best[case.key] = min(best[case.key], sample(case, calls[case.key], loop))
            gc.collect()
    finally:
        gc.enable()
    return best
