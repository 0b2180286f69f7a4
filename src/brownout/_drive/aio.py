"""The driver for asyncio: an attempt runs in the caller's task, and is cancelled when its time is up.

Our cancel is told from the caller's as `asyncio.timeout` does it, by the task's count of cancellations.
"""

from __future__ import annotations

import asyncio
from math import inf, log2
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.attempt import Attempt
from brownout._core.flow import Ask, Call, Command, Done, Options, Start, recover, timed_out
from brownout._core.sketch import BUCKETS, OFFSET, PER_OCTAVE, TINY
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE, ambient
from brownout._drive.wheel import wheel_for
from brownout.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from brownout._core.guard import Core
    from brownout._core.outcome import Outcome
    from brownout._drive.wheel import Wheel

R = TypeVar("R")
_new: Callable[[type[Attempt]], Attempt] = object.__new__  # without a frame for its `__init__`


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
    """`fn` under its guard. What an ordinary call costs is all here, in one frame."""
    if options.keep is not None:
        return _handing(core, options, fn)
    operation, timeout, shards = options.operation, core.timeout, options.operation.evidence.shards
    running, current_task = asyncio._get_running_loop, asyncio.current_task  # noqa: SLF001 - as above
    free = None if core.limit is None else core.limit.free

    async def call(*args: Any, **kwargs: Any) -> Any:
        loop = running() or on_a_loop()
        task: Any = current_task(loop)
        now, thread = clock.now(), get_ident()
        if now >= operation.due or DEADLINE.get() != inf or task is None:
            return await _looked(core, options, fn, args, kwargs, now)
        try:
            shard = shards[thread]
            attempt = (None if free is None else free.pop()) or _new(Attempt)
        except LookupError:
            return await _looked(core, options, fn, args, kwargs, now)
        attempt.shard, attempt.began = shard, now
        attempt.deadline = ends = now + timeout
        (pending := shard.pending)[attempt] = None
        try:
            cancelling, wheel = task.cancelling(), wheel_for(loop, thread, ends)
            wheel.fresh[attempt] = task
            token = DEADLINE.set(ends)
            try:
                value = await (fn(*args, **kwargs) if kwargs else fn(*args))
            except BaseException as error:
                DEADLINE.reset(token)
                over(core, wheel, attempt, task, cancelling, error)
                raise
            DEADLINE.reset(token)
            known = wheel.fresh.pop(attempt, None)
            if known is None:  # the timer has fired meanwhile
                over(core, wheel, attempt, task, cancelling, None)
        except BaseException as error:
            flow = recover(Call(core, options, thread, now, inf), attempt, error, clock.now())
            done = await drive(flow, core, options, fn, args, kwargs)
            if done.error is error:
                raise
            return _raised(done)
        ended = clock.now()
        # As Core.succeed has it, since a call within a call costs; what is due is for the next to see.
        try:
            del pending[attempt]
        except KeyError:  # forked meanwhile: it is the parent's
            return value
        seconds, late = ended - now, wheel.late
        if late.until > now or ended > late.due:  # we stood still meanwhile
            seconds -= late.settle(now, ended)
        index = int(log2(seconds) * PER_OCTAVE + OFFSET) if seconds > TINY else 0
        shard.answered[index if index < BUCKETS else BUCKETS - 1] += 1
        if free is not None:
            free.append(attempt if known is task else None)
        return value

    return call


def _handing(
    core: Core, options: Options, fn: Callable[..., Awaitable[Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """`fn` under its guard, where it is handed its attempt."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _looked(core, options, fn, args, kwargs, clock.now())

    return call


async def _looked(
    core: Core,
    options: Options,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
    now: float,
) -> Any:
    """A call that is not ordinary: it inherits a deadline, or finds something due at its operation."""
    on_a_loop()
    whole = Call(core, options, get_ident(), now, ambient())
    attempt = whole.admit(now)
    if isinstance(attempt, Refused):
        flow = recover(whole, None, attempt, now)
        return _raised(await drive(flow, core, options, fn, args, kwargs))
    try:
        value = await perform(core, attempt, options, fn, args, kwargs)
    except BaseException as error:
        flow = recover(whole, attempt, error, clock.now())
        done = await drive(flow, core, options, fn, args, kwargs)
        if done.error is error:
            raise
        return _raised(done)
    if attempt.shown is None:
        core.succeed(options.operation, attempt, clock.now())
    else:
        core.settle(options.operation, attempt, attempt.shown.class_, clock.now())
    return value


def over(
    core: Core,
    wheel: Wheel,
    attempt: Attempt,
    task: asyncio.Task[Any],
    cancelling: int,
    error: BaseException | None,
) -> None:
    """The attempt is over: raises TimedOut if we cancelled its task, and that is what ended it."""
    wheel.take_out(attempt)
    now = clock.now()
    if now > wheel.late.due:
        wheel.late.beat(now)
    if attempt.expired:
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
        attempt.keep, attempt.key = options.keep, options.key
        args = (attempt, *args)
    with Timer(core, attempt):
        return await fn(*args, **kwargs)


class Timer:
    """Around the awaits of one attempt: cancels them when its time is up, and says so as TimedOut."""

    __slots__ = ("_attempt", "_cancelling", "_core", "_task", "_token", "_wheel")

    def __init__(self, core: Core, attempt: Attempt) -> None:
        self._core = core
        self._attempt = attempt

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a guarded call must run in a task")
        self._task, self._cancelling = task, task.cancelling()
        self._wheel = wheel_for(loop, get_ident(), self._attempt.deadline)
        self._wheel.fresh[self._attempt] = task
        self._attempt.shard.late = self._wheel.late
        self._token = DEADLINE.set(self._attempt.deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        DEADLINE.reset(self._token)
        over(self._core, self._wheel, self._attempt, self._task, self._cancelling, error)


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
    flow: Generator[Command, tuple[float, Done | None], R],
    core: Core,
    options: Options | None,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> R:
    """Carry out a flow's commands until it ends. Who asks is `fn`, if it is a flow that asks."""
    done: Done | None = None
    try:
        command = next(flow)
        while True:
            if isinstance(command, Start):
                done = await _start(command, core, options, fn, args, kwargs)
                command = flow.send((clock.now(), None))
                continue
            if isinstance(command, Ask):
                told = await _asked(command, fn)
                command = flow.send((clock.now(), told))
                continue
            if done is None:
                await asyncio.sleep(command.seconds)
            answer, done = done, None
            command = flow.send((clock.now(), answer))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def _asked(command: Ask, ask: Callable[[Ask], Awaitable[Any]]) -> Done:
    """Put a question, and end it when its time is up; what it calls sees how long it may take."""
    token = DEADLINE.set(min(ambient(), clock.now() + command.seconds))
    try:
        async with asyncio.timeout(command.seconds):
            return Done(await ask(command), None)
    except BaseException as error:
        return Done(None, error)
    finally:
        DEADLINE.reset(token)


async def _start(
    command: Start,
    core: Core,
    options: Options | None,
    fn: Callable[..., Awaitable[Any]],
    args: Any,
    kwargs: Any,
) -> Done:
    assert options is not None
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
