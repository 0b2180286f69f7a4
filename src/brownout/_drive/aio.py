"""The driver for asyncio: an attempt runs in the caller's task, and is cancelled when its time is up.

Our cancel is told from the caller's as `asyncio.timeout` does it, by the task's count of cancellations.
"""

from __future__ import annotations

import asyncio
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any

from brownout._core.evidence import Attempt
from brownout._core.flow import Call, Command, Done, Options, Start, recover, timed_out
from brownout._core.outcome import Outcome, OutcomeClass
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE
from brownout._drive.wheel import wheel
from brownout.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from brownout._core.guard import Core

_SUCCESS = OutcomeClass.SUCCESS


async def run(
    core: Core, options: Options, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
) -> Any:
    """Carry out one guarded call."""
    now, deadline = clock.now(), DEADLINE.get()
    attempt = core.admit(options.operation, get_ident(), now, deadline)
    if isinstance(attempt, Refused):
        call = Call(core, options, get_ident(), now, deadline)
        return _raised(
            await drive(recover(call, None, attempt, now), core, options, fn, args, kwargs)
        )
    try:
        value = await perform(core, attempt, options, fn, args, kwargs)
    except BaseException as error:
        call = Call(core, options, get_ident(), now, deadline)
        done = await drive(
            recover(call, attempt, error, clock.now()), core, options, fn, args, kwargs
        )
        if done.error is error:
            raise
        return _raised(done)
    shown = attempt.shown
    core.settle(attempt, _SUCCESS if shown is None else shown.class_, clock.now())
    return value


async def outcome(
    core: Core, options: Options, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
) -> Outcome[Any]:
    """Carry out one guarded call and tell how it ended; raises only what is no Exception."""
    now = clock.now()
    call = Call(core, options, get_ident(), now, DEADLINE.get())
    attempt = call.admit(now)
    if isinstance(attempt, Refused):
        flow = recover(call, None, attempt, now)
        return call.outcome(await drive(flow, core, options, fn, args, kwargs), clock.now())
    done = await _ended(core, attempt, options, fn, args, kwargs)
    if done.error is None:
        call.settle(attempt, None, clock.now())
    else:
        flow = recover(call, attempt, done.error, clock.now())
        done = await drive(flow, core, options, fn, args, kwargs)
    return call.outcome(done, clock.now())


async def perform(
    core: Core,
    attempt: Attempt,
    options: Options,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> Any:
    """Run one attempt, and cancel it when its time is up."""
    if options.keep is not None:
        attempt.keep = options.keep
        args = (attempt, *args)
    if attempt.deadline == inf:
        return await fn(*args, **kwargs)
    with Timer(core.target.name, attempt):
        return await fn(*args, **kwargs)


class Timer:
    """Around the awaits of one attempt: cancels them when its time is up, and says so as TimedOut."""

    __slots__ = ("_attempt", "_cancelling", "_slot", "_target", "_task", "_token", "_wheel")

    def __init__(self, target: str, attempt: Attempt) -> None:
        self._target = target
        self._attempt = attempt

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a guarded call must run in a task")
        self._task, self._cancelling = task, task.cancelling()
        self._wheel, self._slot = wheel(loop), -1
        left = self._attempt.deadline - self._attempt.began
        if left < inf:
            self._slot = self._wheel.add(self._attempt, task, loop, left)
        self._token = DEADLINE.set(self._attempt.deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._wheel.remove(self._attempt, self._slot)
        DEADLINE.reset(self._token)
        if not self._attempt.expired:
            return
        ours = self._task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise timed_out(self._target, self._attempt, clock.now()) from error


async def _ended(
    core: Core,
    attempt: Attempt,
    options: Options,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> Done:
    try:
        return Done(await perform(core, attempt, options, fn, args, kwargs), None)
    except BaseException as error:
        return Done(None, error)


async def drive(
    flow: Generator[Command, tuple[float, Done | None], Done],
    core: Core,
    options: Options,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> Done:
    """Carry out a flow's commands until it ends."""
    done: Done | None = None
    try:
        command = next(flow)
        while True:
            if isinstance(command, Start):
                done = await _start(command, core, options, fn, args, kwargs)
                command = flow.send((clock.now(), None))
                continue
            if done is None:
                await asyncio.sleep(command.seconds)
            answer, done = done, None
            command = flow.send((clock.now(), answer))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def _start(
    command: Start,
    core: Core,
    options: Options,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> Done:
    if isinstance(command.what, Attempt):
        return await _ended(core, command.what, options, fn, args, kwargs)
    assert options.fallback is not None
    try:
        value = options.fallback(*args, **kwargs)
        return Done(await value if asyncio.iscoroutine(value) else value, None)
    except BaseException as error:
        return Done(None, error)


def _raised(done: Done) -> Any:
    if done.error is not None:
        raise done.error
    return done.value
