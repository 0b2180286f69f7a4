"""The probes that the peers were put to (P1 to P14), counted at the target.

Each has one right answer. Time is virtual, so that a hang costs nothing, but where threads are the point.
"""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Breaker, BreakerOpen, Guard, Refused, Retry, State, deadline, remaining
from brownout._core.breaker import CLOSED, OPEN, RAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from brownout.testing import FakeClock

PROBES = Breaker().probes
WELL_SECONDS = 0.02
RECOVERY_SECONDS = 1.0


class Service:
    """The target: counts what reaches it, and answers in `seconds`, unless it hangs or fails."""

    def __init__(self, clock: FakeClock, seconds: float = WELL_SECONDS) -> None:
        self.clock = clock
        self.seconds = seconds
        self.reached = 0
        self.hangs = False
        self.fails: Callable[[], bool] = lambda: False

    async def __call__(self) -> str:
        self.reached += 1
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.seconds)
        if self.fails():
            raise RuntimeError("odd")
        return "ok"

    def sync(self) -> str:
        """The same for threads; a client that was handed the time that is left."""
        self.reached += 1
        if self.hangs:
            self.clock.advance(remaining())
            raise TimeoutError
        self.clock.advance(self.seconds)
        if self.fails():
            raise RuntimeError("odd")
        return "ok"


def phase(guard: Guard, operation: str = "Service") -> Any:
    return guard._core.gates[guard._target.operations[operation]].phase


def judged(guard: Guard) -> State | None:
    """A call, so that mypy does not think that the state stays."""
    return guard.state


async def warm(guard: Guard, service: Service, calls: int) -> None:
    """Healthy calls, one after the other."""
    for _ in range(calls):
        assert await guard.acall(service) == "ok"
    service.reached = 0


async def tripped(guard: Guard, service: Service, calls: int = 600) -> None:
    """Well, then hung, until the breaker is open."""
    await warm(guard, service, calls)
    service.hangs = True
    while phase(guard) is not OPEN:
        await ends(guard.acall(service), 0.5)
        assert service.reached < 100
    service.reached = 0


async def ends(call: Coroutine[Any, Any, Any], patience: float) -> str:
    """How a call ends for a caller that waits for so long."""
    try:
        async with asyncio.timeout(patience):
            return str(await call)
    except Exception as error:
        return type(error).__name__


# ------------------------------------------------------------------------------------------- hangs


async def sixty(guard: Guard, service: Service, patience: float, step: float = 0.0) -> int:
    """60 calls to a target that hangs, in a row; how many reach it. It must be named."""
    service.hangs = True
    service.reached = 0
    seen = set()
    for _ in range(60):
        await ends(guard.acall(service), patience)
        seen.add(guard.state)
        await asyncio.sleep(step)
    assert State.UNRESPONSIVE in seen
    return service.reached


@pytest.mark.parametrize(
    ("calls", "patience"),
    [(600, 0.5), (600, 0.1), (100, 0.5), (30, 0.3), (0, 1.0)],
    ids=["known", "known, impatient", "hardly known", "barely known", "never seen well"],
)
def test_p2_a_hang_with_the_time_out_outside(clock: FakeClock, calls: int, patience: float) -> None:
    guard, service = Guard("t"), Service(clock)

    async def main() -> int:
        await warm(guard, service, calls)
        return await sixty(guard, service, patience)

    assert clock.run(main()) <= 10


@pytest.mark.parametrize("calls", [600, 30, 0])
@pytest.mark.parametrize("timeout", [0.05, 0.5, 5.0])
def test_p3_a_hang_with_the_time_out_inside(clock: FakeClock, calls: int, timeout: float) -> None:
    guard, service = Guard("t", timeout=timeout), Service(clock)

    async def main() -> int:
        await warm(guard, service, calls)
        return await sixty(guard, service, 1000.0)

    assert clock.run(main()) <= 10


def test_p3_a_hang_under_threads(clock: FakeClock) -> None:
    guard, service = Guard("t", timeout=0.5), Service(clock)
    for _ in range(600):
        guard.call(service.sync, operation="op")
    service.hangs, service.reached = True, 0
    told = []
    for _ in range(60):
        told.append(guard.outcome(service.sync, operation="op"))
        clock.advance(0.02)
    assert service.reached <= 10
    assert any(isinstance(one.error, BreakerOpen) for one in told)


@pytest.mark.parametrize("calls", [0, 30, 600])
@pytest.mark.parametrize("patience", [0.005, 0.015])
def test_p2b_sixty_callers_who_leave_a_healthy_target_too_soon(
    clock: FakeClock, calls: int, patience: float
) -> None:
    guard, service = Guard("t"), Service(clock)

    async def main() -> None:
        await warm(guard, service, calls)
        told = [await ends(guard.acall(service), patience) for _ in range(60)]
        assert set(told) == {"TimeoutError"}
        assert service.reached == 60  # nobody was refused
        assert await guard.acall(service) == "ok"
        assert not guard.at_least(State.DEGRADED)

    clock.run(main())


def test_p14_ten_impatient_callers_leave_the_patient_one_served(clock: FakeClock) -> None:
    guard, service = Guard("t", timeout=1.0), Service(clock)

    async def impatient() -> None:
        with deadline(0.005), pytest.raises(TimeoutError):
            await guard.acall(service)

    async def main() -> None:
        await asyncio.gather(*(impatient() for _ in range(10)))
        assert await guard.acall(service) == "ok"

    clock.run(main())
    assert service.reached == 11


# ---------------------------------------------------------------------------------------- recovery


def test_p1_a_herd_of_fifty_gets_only_the_probes(clock: FakeClock) -> None:
    guard, service = Guard("t"), Service(clock)

    async def main() -> list[str]:
        await tripped(guard, service)
        await asyncio.sleep(60.0)
        service.hangs = False
        return list(await asyncio.gather(*(ends(guard.acall(service), 10.0) for _ in range(50))))

    told = clock.run(main())
    assert service.reached <= PROBES
    assert told.count("ok") == service.reached == 50 - told.count("BreakerOpen")


def test_p4_a_late_success_of_before_the_trip_lets_nobody_in(clock: FakeClock) -> None:
    guard, service = Guard("t"), Service(clock)

    async def main() -> None:
        await warm(guard, service, 600)
        early = Service(clock, seconds=9.0)
        late = asyncio.create_task(guard.acall(early, operation="Service"))
        service.hangs = True
        while phase(guard) is not OPEN:
            await ends(guard.acall(service), 0.5)
            assert service.reached < 100
        guard._core.gates[guard._target.operations["Service"]].until = clock.now() + 60.0
        service.reached, service.hangs = 0, False
        assert await late == "ok"
        assert [await ends(guard.acall(service), 1.0) for _ in range(20)] == ["BreakerOpen"] * 20

    clock.run(main())
    assert service.reached == 0


@pytest.mark.parametrize("hung", [1, 2, 3])
def test_p5_probes_that_hang(clock: FakeClock, hung: int) -> None:
    """However many of them hang, it heals in this recovery period and the next."""
    guard = Guard("t", breaker=Breaker(wait=RECOVERY_SECONDS))
    service = Service(clock)

    async def main() -> float:
        await tripped(guard, service)
        gate = guard._core.gates[guard._target.operations["Service"]]
        await asyncio.sleep(gate.until - clock.now())
        stuck = [asyncio.create_task(guard.acall(service)) for _ in range(hung)]
        await asyncio.sleep(0)
        service.hangs, began = False, clock.now()
        while phase(guard) is not RAMP:
            await ends(guard.acall(service), 1.0)
            await asyncio.sleep(0.01)
            assert clock.now() - began < 60
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert phase(guard) is RAMP
        return clock.now() - began

    took = clock.run(main())
    doubled = 1.25 * 2 * RECOVERY_SECONDS
    assert took <= RECOVERY_SECONDS + (doubled if hung == PROBES else 0.0) + 0.1


def test_p6_probes_that_are_cancelled(clock: FakeClock) -> None:
    guard = Guard("t", breaker=Breaker(wait=RECOVERY_SECONDS))
    service = Service(clock)

    async def main() -> float:
        await tripped(guard, service)
        gate = guard._core.gates[guard._target.operations["Service"]]
        await asyncio.sleep(gate.until - clock.now())
        began = clock.now()
        for _ in range(20):
            assert await ends(guard.acall(service), 0.01) == "TimeoutError"
        service.hangs = False
        while phase(guard) is not CLOSED:
            await ends(guard.acall(service), 1.0)
            assert clock.now() - began < 60
        return clock.now() - began - Breaker().ramp

    assert clock.run(main()) <= 2 * RECOVERY_SECONDS


def test_after_ten_minutes_of_outage_it_is_well_within_two_windows(clock: FakeClock) -> None:
    guard, service = Guard("t", timeout=0.5), Service(clock)

    async def main() -> float:
        await warm(guard, service, 600)
        service.hangs, end = True, clock.now() + 600
        while clock.now() < end:
            await ends(guard.acall(service), 10.0)
            await asyncio.sleep(0.05)
        assert judged(guard) is State.UNRESPONSIVE
        assert service.reached < 600 / 0.05 / 20  # it was left alone
        service.hangs, began = False, clock.now()
        while judged(guard) is not State.HEALTHY or phase(guard) is not CLOSED:
            await ends(guard.acall(service), 10.0)
            await asyncio.sleep(0.05)
            assert clock.now() - began < 200
        assert [await ends(guard.acall(service), 1.0) for _ in range(100)] == ["ok"] * 100
        return clock.now() - began

    assert clock.run(main()) <= 60.0


# -------------------------------------------------------------------------------- partial failures


def spread(share: float) -> Callable[[], bool]:
    """Fails that share of the calls, evenly."""
    count = 0

    def fails() -> bool:
        nonlocal count
        count += 1
        return int(count * share) > int((count - 1) * share)

    return fails


def by_chance(share: float, seed: int) -> Callable[[], bool]:
    chance = random.Random(seed)
    return lambda: chance.random() < share


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.1])
def test_p9_a_share_that_fails_is_named_within_thirty_calls(
    clock: FakeClock, share: float, seconds: float
) -> None:
    """Or at the end of the tick (0.1 s) in which the thirtieth falls."""
    guard, service = Guard("t"), Service(clock, seconds)

    async def main() -> None:
        await warm(guard, service, 1000)
        assert judged(guard) is State.HEALTHY
        service.fails = spread(share)
        for _ in range(30):
            await ends(guard.acall(service), 10.0)
        tick_ends = guard._target.next_fold
        while clock.now() < tick_ends:
            await ends(guard.acall(service), 10.0)
        assert judged(guard) is State.DEGRADED

    clock.run(main())


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.6])
@pytest.mark.parametrize("retry", [None, Retry(attempts=3, budget=0.1)])
@pytest.mark.parametrize("calls", [0, 600])
def test_p9_a_guard_answers_no_smaller_share_than_none(
    clock: FakeClock, share: float, retry: Retry | None, calls: int
) -> None:
    """In particular 60 % that fail do not become 100 %."""
    guard = Guard("t", timeout=1.0, retry=retry, idempotent=True)
    service, bare = Service(clock), Service(clock)

    async def main() -> tuple[int, int]:
        await warm(guard, service, calls)
        service.fails, bare.fails = by_chance(share, 7), by_chance(share, 7)
        told = [await ends(guard.acall(service), 10.0) for _ in range(2000)]
        return told.count("ok"), [await ends(bare(), 10.0) for _ in range(2000)].count("ok")

    guarded, unguarded = clock.run(main())
    if retry is None:
        assert guarded == unguarded
    else:
        assert guarded > unguarded


def test_p10_five_times_slower_is_named_within_sixty_calls(clock: FakeClock) -> None:
    guard, service = Guard("t"), Service(clock)

    async def main() -> None:
        await warm(guard, service, 600)
        service.seconds *= 5
        for _ in range(60):
            assert await guard.acall(service) == "ok"
        assert judged(guard) is State.DEGRADED

    clock.run(main())


# -------------------------------------------------------------------------------- threads and form


def test_p7_eight_threads_are_inside_at_once() -> None:
    """One that had to wait for another would break the barrier."""
    guard = Guard("t", timeout=20.0, limit=8)
    barrier, told = threading.Barrier(8, timeout=10.0), []

    def call() -> None:
        told.append(guard.call(barrier.wait))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15.0)
    assert sorted(told) == list(range(8))


def test_p8_the_sync_form_on_an_async_function(clock: FakeClock) -> None:
    guard, service = Guard("t", timeout=0.5), Service(clock)

    @guard
    async def work() -> str:
        return await service()

    hidden: Any = work

    async def main() -> int:
        await warm(guard, service, 100)
        service.hangs = True
        for _ in range(40):
            await ends(work(), 1000.0)
        return service.reached

    assert clock.run(main()) <= 10
    before = service.reached
    with pytest.raises(TypeError, match="acall"):
        guard.call(hidden)
    assert service.reached == before


def test_p11_forty_hung_sync_calls_leak_no_thread() -> None:
    guard, go, inside = Guard("t", timeout=0.01), threading.Event(), threading.Semaphore(0)
    before = threading.active_count()

    def hang() -> None:
        inside.release()
        go.wait(20.0)

    callers = [threading.Thread(target=guard.call, args=(hang,)) for _ in range(40)]
    for thread in callers:
        thread.start()
    for _ in callers:
        assert inside.acquire(timeout=10.0)
    assert threading.active_count() == before + 40  # the callers' own, and no other
    go.set()
    for thread in callers:
        thread.join(10.0)
    assert threading.active_count() == before


def test_p13_a_cancelled_call_is_never_run_again(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=5, budget=1.0, backoff=0.001), idempotent=True)
    guard._target.budget.balance = 10.0
    service = Service(clock)
    service.hangs = True

    async def main() -> None:
        assert await ends(guard.acall(service), 0.02) == "TimeoutError"
        await asyncio.sleep(5.0)

    clock.run(main())
    assert service.reached == 1


def test_a_probe_can_fail(clock: FakeClock) -> None:
    """Against a guard without a breaker, which is what these probes are about: all 60 reach it."""
    guard, service = Guard("t", breaker=None), Service(clock)

    async def main() -> int:
        await warm(guard, service, 600)
        return await sixty(guard, service, 0.5)

    assert clock.run(main()) == 60
    assert isinstance(BreakerOpen("x", target="t"), Refused)
