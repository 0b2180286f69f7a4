"""The driver for asyncio: an attempt runs in the caller's task, and is cancelled when its time is up.

Our cancel is told from the caller's as `asyncio.timeout` does it, by the task's count of cancellations.
"""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import TYPE_CHECKING, Any

from brownout._core.evidence import Attempt
from brownout._core.flow import Call, Command, Done, Options, Start, recover, timed_out
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE, ambient
from brownout._drive.wheel import waiting
from brownout.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from brownout._core.guard import Core
    from brownout._core.outcome import Outcome


def on_a_loop() -> asyncio.AbstractEventLoop:
    """The running loop; raises RuntimeError where there is none (trio): nothing would end a hang."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented for event loops
    if loop is None:
        raise RuntimeError(
            "no asyncio loop is running, so a guarded call could not be bounded and is not made: under"
            " trio run it by trio-asyncio, or guard a `def` and call it by trio.to_thread.run_sync"
        )
    return loop


def guarded(
    core: Core, options: Options, fn: Callable[..., Awaitable[Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """`fn` under its guard. What a call that goes well costs is all here, in one frame."""
    operation, admit, succeed = options.operation, core.admit, core.succeed
    keep = options.keep

    async def call(*args: Any, **kwargs: Any) -> Any:
        loop = on_a_loop()
        now, deadline, thread = clock.now(), ambient(), get_ident()
        attempt: Any = admit(operation, thread, now, deadline)
        if attempt.__class__ is not Attempt:
            whole = Call(core, options, thread, now, deadline)
            flow = recover(whole, None, attempt, now)
            return _raised(await drive(flow, core, options, fn, args, kwargs))
        try:
            task: Any = asyncio.current_task(loop)
            others, cancelling = waiting(loop, thread, attempt.deadline), task.cancelling()
            others[attempt] = task
            token = DEADLINE.set(attempt.deadline)
            try:
                if keep is None:
                    value = await fn(*args, **kwargs)
                else:
                    attempt.keep = keep
                    value = await fn(attempt, *args, **kwargs)
            except BaseException as error:
                others.pop(attempt, None)
                DEADLINE.reset(token)
                if attempt.expired:
                    over(core, attempt, task, cancelling, error)
                raise
            others.pop(attempt, None)
            DEADLINE.reset(token)
            if attempt.expired:
                over(core, attempt, task, cancelling, None)
        except BaseException as error:
            whole = Call(core, options, thread, now, deadline)
            flow = recover(whole, attempt, error, clock.now())
            done = await drive(flow, core, options, fn, args, kwargs)
            if done.error is error:
                raise
            return _raised(done)
        if attempt.shown is None:
            succeed(operation, attempt, clock.now())
        else:
            core.settle(operation, attempt, attempt.shown.class_, clock.now())
        return value

    return call


def over(
    core: Core,
    attempt: Attempt,
    task: asyncio.Task[Any],
    cancelling: int,
    error: BaseException | None,
) -> None:
    """The attempt's time was up and we cancelled its task: raises TimedOut if that is what ended it."""
    ours = task.uncancel() <= cancelling
    if ours and isinstance(error, asyncio.CancelledError):
        raise timed_out(core.target.name, attempt, clock.now()) from error


async def outcome(
    core: Core, options: Options, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
) -> Outcome[Any]:
    """Carry out one guarded call and tell how it ended; raises only what is no Exception."""
    on_a_loop()
    now = clock.now()
    call = Call(core, options, get_ident(), now, ambient())
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
    with Timer(core, attempt):
        return await fn(*args, **kwargs)


class Timer:
    """Around the awaits of one attempt: cancels them when its time is up, and says so as TimedOut."""

    __slots__ = ("_attempt", "_cancelling", "_core", "_others", "_task", "_token")

    def __init__(self, core: Core, attempt: Attempt) -> None:
        self._core = core
        self._attempt = attempt

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a guarded call must run in a task")
        self._task, self._cancelling = task, task.cancelling()
        self._others = waiting(loop, get_ident(), self._attempt.deadline)
        self._others[self._attempt] = task
        self._token = DEADLINE.set(self._attempt.deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._others.pop(self._attempt, None)
        DEADLINE.reset(self._token)
        if self._attempt.expired:
            over(self._core, self._attempt, self._task, self._cancelling, error)


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
