"""Loops of every kind: many in threads, uvloop, and trio, which is not one."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from brownout import Guard, TimedOut


async def hangs() -> None:
    await asyncio.get_running_loop().create_future()


async def bounded(guard: Guard, calls: int) -> None:
    """Overlapping hangs and answers on one loop: each hang ends at its time."""

    async def one() -> None:
        began = time.monotonic()
        with pytest.raises(TimedOut):
            await guard.acall(hangs)
        assert 0.1 <= time.monotonic() - began < 5.0

    async def well() -> str:
        await asyncio.sleep(0.01)
        return "ok"

    told = await asyncio.gather(*(one() for _ in range(calls)), *(guard.acall(well) for _ in "ab"))
    assert told[-2:] == ["ok", "ok"]


def test_many_loops_in_threads_share_a_guard_and_no_timer() -> None:
    guard, errors = Guard("t", timeout=0.1, breaker=None), list[BaseException]()

    def loop() -> None:
        try:
            for _ in range(3):
                asyncio.run(bounded(guard, 5))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert errors == []
    assert guard._target.calls == 6 * 3 * 7


def test_under_uvloop() -> None:
    uvloop: Any = pytest.importorskip("uvloop", reason="uvloop is not installed: it goes untested")
    guard = Guard("t", timeout=0.1, breaker=None)

    async def main() -> str:
        await bounded(guard, 5)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                await guard.acall(hangs)
        assert not isinstance(caught.value, TimedOut)
        with pytest.raises(TimedOut):
            async with guard.attempt():
                await hangs()
        return type(asyncio.get_running_loop()).__module__

    for _ in range(3):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(main()).startswith("uvloop")


FORMS = ["acall", "outcome", "decorated", "attempt"]


def begun(guard: Guard, form: str, fn: Any) -> Any:
    async def block() -> None:
        async with guard.attempt():
            await fn()

    if form == "attempt":
        return block()
    if form == "decorated":
        decorated: Any = guard(fn)
        return decorated()
    return guard.acall(fn) if form == "acall" else guard.outcome(fn)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("timeout", [0.5, float("inf")])
def test_without_an_asyncio_loop_nothing_is_called(form: str, timeout: float) -> None:
    """Neither sent nor counted against the target: as under trio, whose tasks drive it like this."""
    guard, reached = Guard("t", timeout=timeout, limit=1), list[int]()

    async def work() -> None:
        reached.append(1)

    with pytest.raises(RuntimeError, match=r"no asyncio loop.*trio"):
        begun(guard, form, work).send(None)
    assert reached == []
    assert guard._target.calls == 0
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


@pytest.mark.parametrize("form", FORMS)
def test_under_trio_it_is_an_error_at_once(form: str) -> None:
    trio: Any = pytest.importorskip("trio", reason="trio is not installed: it goes untested")
    guard, reached = Guard("t"), list[int]()

    async def work() -> None:
        reached.append(1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="trio-asyncio"):
            await begun(guard, form, work)
        assert await trio.to_thread.run_sync(guard.call, lambda: "ok") == "ok"  # the way out

    trio.run(main)
    assert reached == []
